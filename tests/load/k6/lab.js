// Each user in every round a new lab: start it, reload the page, look at it, give it back.

import { allocate, giveBack, look, options as common, summary, think } from './broker.js';

export const options = common();
export const handleSummary = summary;

export default function () {
  const track = `lab-${__VU}-${__ITER}`;
  const sandbox = allocate(track);
  think();
  if (sandbox === null) return;
  allocate(track, undefined, [200]);
  look(track, sandbox);
  giveBack(track, sandbox);
}
