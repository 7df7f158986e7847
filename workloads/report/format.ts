/** Numbers for people. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** 1,000-based, three significant digits: `1.00 GB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? String(value) : significant(value)} ${BYTE_UNITS[unit]}`;
}

/** `10,000,000`. */
export function formatCount(count: number): string {
  return count.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** `1.23 s`, `45.6 ms`, `780 µs`. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return "0 s";
  if (seconds >= 0.9995) return `${significant(seconds)} s`;
  if (seconds >= 0.0009995) return `${significant(seconds * 1e3)} ms`;
  return `${significant(seconds * 1e6)} µs`;
}

/** `23.4 %`. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function significant(value: number): string {
  if (value >= 99.95) return formatCount(value);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
