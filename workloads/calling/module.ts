/** Where the functions lie that function workers run. */

/** URL of a module beside the one at `base`: `calls` is `calls.ts` from sources and `calls.js` when built. */
export function moduleBeside(base: string, name: string): string {
  const extension = base.slice(base.lastIndexOf("."));
  return new URL(`./${name}${extension}`, base).href;
}
