/** The seed of a test's random choices: MILLRACE_SEED takes the place of a fresh one, which is printed. */
import { randomInt } from "node:crypto";

export { type Random, randomOf } from "../../bench/random.js";

export function printedSeed(what: string): number {
  const seed = Number(process.env.MILLRACE_SEED ?? randomInt(2 ** 31));
  console.log(`${what}: MILLRACE_SEED=${seed}`);
  return seed;
}
