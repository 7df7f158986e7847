/** Which IDX files go together, by their names. Pure. */
import { basename, dirname, join } from "node:path";

export interface FoundImages {
  path: string;
  /** In a directory, and not named by itself. */
  isFound: boolean;
}

/**
 * Of files found in a directory those of one role, where there are such: `train-images-idx3-ubyte` beside
 * `t10k-images-idx3-ubyte`. What was named by itself is meant.
 */
export function ofRole<T extends FoundImages>(images: readonly T[], role: "train" | "test"): T[] {
  const isTest = ({ path }: T): boolean => /(?:^|[-_.])(?:t10k|test)(?:[-_.]|$)/i.test(basename(path));
  const wanted = images.filter((each) => !each.isFound || isTest(each) === (role === "test"));
  return wanted.length > 0 ? wanted : [...images];
}

/** Where the labels of `train-images-idx3-ubyte.gz` may lie, or null where its name does not say. */
export function labelPaths(images: string): string[] | null {
  const name = basename(images);
  const at = name.toLowerCase().lastIndexOf("images");
  if (at === -1) return null;
  const plain = `${name.slice(0, at)}${matchCase(name.slice(at, at + 6))}${name.slice(at + 6).replace(/idx\d/i, "idx1")}`;
  const bare = plain.replace(/\.gz$/i, "");
  const [first, second] = plain === bare ? [bare, `${bare}.gz`] : [plain, bare];
  return [join(dirname(images), first), join(dirname(images), second)];
}

function matchCase(images: string): string {
  if (images === images.toUpperCase()) return "LABELS";
  return images[0] === "I" ? "Labels" : "labels";
}
