// Compares what Slither found with the answers that slither.md gives.
//
// An answer is a row of a table: | `detector` | `Contract.function` | why it is right as it is |.
// `*` in the second column answers a detector everywhere. Each finding needs an answer, and each
// answer a finding, so the page can neither lag behind nor pile up.

/** Where a finding lies: "Contract", "Contract.function" or "Contract.variable". */
function place(element) {
  const parent = element.type_specific_fields?.parent;
  if (element.type === 'contract' || parent === undefined) return element.name;
  if (element.type === 'node') return place(parent);
  // A local variable is its function's affair.
  if (parent.type === 'function') return place(parent);
  return `${place(parent)}.${element.name}`;
}

/** The answers of the page, as "detector place". */
function answers(page) {
  return [...page.matchAll(/^\| `([\w-]+)` \| `([^`]+)` \| \S/gm)].map((row) => `${row[1]} ${row[2]}`);
}

/** One line for each finding without an answer, and for each answer without a finding. */
export function unanswered(findings, page) {
  const given = new Set(answers(page));
  const used = new Set();
  const lines = [];
  for (const finding of findings) {
    const keys = [`${finding.check} ${place(finding.elements[0])}`, `${finding.check} *`];
    const key = keys.find((candidate) => given.has(candidate));
    if (key) used.add(key);
    else lines.push(`${keys[0]}: ${finding.description.trim()}`);
  }
  for (const key of given) if (!used.has(key)) lines.push(`${key}: answered, but not found any more`);
  return lines;
}
