// Fifty students in five labs: each starts three lab instances one after the other, and reloads each page once.

import { allocate, options as common, summary, think } from './broker.js';

export const options = common();
export const handleSummary = summary;

const LABS = 5;

export default function () {
  const lab = `lab-${(__VU - 1) % LABS}`;
  const track = `student-${__VU}-${__ITER}`;
  const sandbox = allocate(track, lab);
  think();
  if (sandbox !== null) allocate(track, lab, [200]);
}
