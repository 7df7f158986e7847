/** Tells libsvm from CSV by the shape of the first lines. Pure. */

const LINES_LOOKED_AT = 20;
const PAIR = /^\d+:[-+]?(?:\d|\.\d|inf|nan)[^\s:,;]*$/i;

/** `cut`: the text goes on, so that its last line may be a part. */
export function looksLikeLibsvm(text: string, cut: boolean): boolean {
  const lines = text.split("\n");
  // A line that is longer than everything looked at is judged by what there is of it, but for its last pair.
  if (cut && lines.length > 1) lines.pop();
  else if (cut) lines[0] = (lines[0] as string).replace(/\S*$/, "");
  let rows = 0;
  let alike = 0;
  for (const line of lines) {
    const data = line.replace(/#.*$/, "").trim();
    const tokens = data.split(/[ \t]+/);
    if (tokens[0] === "") continue;
    rows += 1;
    // Rows that are all zeros have a label and nothing else, which says nothing about the format.
    if (tokens.length === 1 && !tokens[0]?.includes(":")) rows -= 1;
    else if (tokens.some((token) => PAIR.test(token)) && !data.includes(",")) alike += 1;
    if (rows === LINES_LOOKED_AT) break;
  }
  return rows > 0 && alike * 2 > rows;
}
