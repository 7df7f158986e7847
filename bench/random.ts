/** Random choices that can be repeated from a seed. */
export interface Random {
  /** From 0 up to but not including 1. */
  next(): number;
  /** From 0 up to but not including `end`. */
  below(end: number): number;
  pick<T>(from: readonly T[]): T;
}

/** Xorshift of 32 bits: the same numbers everywhere. */
export function randomOf(seed: number): Random {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const below = (end: number) => Math.floor(next() * end);
  return { next, below, pick: (from) => from[below(from.length)] as (typeof from)[number] };
}
