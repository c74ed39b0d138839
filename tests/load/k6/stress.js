// A hundred users on a hundred sandboxes, every round a new track: exactly a hundred get one, and they ask again
// (a page that is reloaded) while the others hammer the exhausted pool.

import { allocate, options as common, summary, think } from './broker.js';

export const options = common();
export const handleSummary = summary;

export default function () {
  const track = `stress-${__VU}-${__ITER}`;
  if (allocate(track) !== null) allocate(track, undefined, [200]);
  think();
}
