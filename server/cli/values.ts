/** Values of flags as people write them: sizes, durations and addresses. Wrong ones throw UsageError. */
import { UsageError } from "./errors.js";

const UNIT_BYTES: Record<string, number> = {
  "": 1,
  b: 1,
  k: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gib: 1024 ** 3,
  t: 1024 ** 4,
  tib: 1024 ** 4,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
};

/** Bytes of "64MiB", "1.5G", "512M", "100MB" or "4096". K, M, G and T count in 1024s, kB, MB, GB and TB in 1000s. */
export function parseSize(text: string, what = "size"): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-zA-Z]*)$/.exec(text.trim());
  const unitBytes = match === null ? undefined : UNIT_BYTES[(match[2] as string).toLowerCase()];
  if (match === null || unitBytes === undefined) {
    throw new UsageError(`${what} ${JSON.stringify(text)} is not a size; write it like 64MiB, 1GiB or 512M`);
  }
  const bytes = Math.floor(Number(match[1]) * unitBytes);
  if (!Number.isSafeInteger(bytes)) throw new UsageError(`${what} ${text} is too large`);
  return bytes;
}

/** As `parseSize` reads it back, rounded to one digit: "1.5 GiB". */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const shown = unit === 0 || Number.isInteger(value) ? String(value) : value.toFixed(1);
  return `${shown} ${units[unit]}`;
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of "500ms", "60s", "10m", "2h" or "1d". */
export function parseDuration(text: string, what = "duration"): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim());
  if (match === null) {
    throw new UsageError(`${what} ${JSON.stringify(text)} is not a duration; write it like 500ms, 60s or 2h`);
  }
  return Math.round(Number(match[1]) * (UNIT_MS[match[2] as string] as number));
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export interface Address {
  /** A name or an address; IPv6 without brackets. */
  host: string;
  /** 0: any free one. */
  port: number;
}

/** "HOST:PORT", "[IPV6]:PORT" or ":PORT" (all interfaces). */
export function parseAddress(text: string, what = "address"): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})$/.exec(text.trim());
  const port = match === null ? Number.NaN : Number(match[3]);
  if (match === null || port > 65_535) {
    throw new UsageError(`${what} ${JSON.stringify(text)} is not HOST:PORT, for example 127.0.0.1:7400`);
  }
  const host = match[1] ?? (match[2] as string);
  return { host: host === "" ? "0.0.0.0" : host, port };
}
