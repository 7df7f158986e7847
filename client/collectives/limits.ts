/** Bounds and thresholds of collectives. All members of a group must go by the same ones. */

/** Everything that collectives keep in a namespace lies under it. */
export const KEY_PREFIX = "_millrace/";

export const GROUP_SIZE_MAX = 4096;
export const NAME_CHARACTERS_MAX = 256;
export const KEEP_ROUNDS_MAX = 1_000_000;
export const ARRAY_BYTES_MAX = 2 ** 40;

/**
 * Up to this many bytes that a member would read beyond what it reads in any case, (size - 2) arrays, each member sums
 * all contributions by itself: one exchange. Above, each sums a slice and reads those of the others: two exchanges,
 * but nothing is added up more than once. Measured: `millrace bench allreduce`.
 */
export const DIRECT_EXTRA_BYTES_MAX = 4 << 20;

/** Slices begin at multiples of it, which is a cache line of the smallest elements. */
export const SLICE_ELEMENTS = 16;

/** A slice above this is summed in memory of the process and written from there: segments hold no larger room. */
export const SLICE_IN_PLACE_BYTES_MAX = 128 << 20;

/** Inputs of a sum that is not worth a thread, in bytes. */
export const SUM_AT_ONCE_BYTES_MAX = 256 << 10;

/** An entry up to this is put together with its header, in one piece. */
export const SMALL_ENTRY_BYTES_MAX = 256 << 10;

/** Values that a process keeps, where it cannot read them in place. */
export const CACHE_BYTES_MAX = 256 << 20;

/** The watch that wakes those who wait stays open for as long after the last of them. */
export const WATCH_IDLE_MS = 2_000;

/** How often an entry is written anew where nobody knows whether it was. */
export const WRITE_ATTEMPTS_MAX = 8;
