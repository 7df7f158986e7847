/**
 * A small mutating fuzzer. It knows of an input only what came of it, in a word: one with a new outcome is mutated
 * further. The same seed makes the same inputs, one after another.
 */
import type { Random } from "../../bench/random.js";
import { randomOf } from "./random.js";

export interface FuzzTarget {
  /** Good inputs to begin with; at least one. */
  readonly corpus: readonly Buffer[];
  /** What stands in such inputs, to be put anywhere. */
  readonly words: readonly string[];
  /** Tries one, and says what came of it. Throws where that is wrong. */
  attempt(input: Buffer, random: Random): string | Promise<string>;
}

export interface FuzzResult {
  rounds: number;
  /** How many rounds ended so. */
  outcomes: Record<string, number>;
}

const INPUT_BYTES_MAX = 64 * 1024;
const CORPUS_MAX = 1_000;
const MUTATIONS_MAX = 4;

/**
 * Tries the corpus as it is, and then mutations of it for so many seconds. `onInput` is told of each input before it is
 * tried. What an attempt throws is thrown on with its input.
 */
export async function fuzz(
  target: FuzzTarget,
  seed: number,
  seconds: number,
  onInput: (input: Buffer) => void = () => {},
): Promise<FuzzResult> {
  const random = randomOf(seed);
  const corpus = [...target.corpus];
  const outcomes = new Map<string, number>();
  let rounds = 0;
  const until = performance.now() + seconds * 1_000;
  while (rounds < target.corpus.length || performance.now() < until) {
    const given = target.corpus[rounds];
    const input = given ?? mutate(random.pick(corpus), corpus, target.words, random);
    rounds += 1;
    onInput(input);
    let outcome: string;
    try {
      outcome = await target.attempt(input, random);
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error);
      throw new Error(`seed ${seed}, round ${rounds}, ${shownInput(input)}: ${what}`);
    }
    const before = outcomes.get(outcome) ?? 0;
    outcomes.set(outcome, before + 1);
    if (before === 0 && given === undefined && corpus.length < CORPUS_MAX) corpus.push(input);
  }
  return { rounds, outcomes: Object.fromEntries(outcomes) };
}

/** An input so that a test can be made of it. */
export function shownInput(input: Buffer): string {
  return `input ${JSON.stringify(input.toString("latin1").slice(0, 2_000))}, in base64 ${input.toString("base64")}`;
}

/** What was thrown, with nothing of the input in it: an outcome. */
export function outcomeOf({ code, message }: { code: string; message: string }): string {
  return `${code} ${message.replace(/"[^"]*"|<[^>]*>/g, "").replace(/[^A-Za-z ]+/g, "")}`.slice(0, 70);
}

const BYTES = [
  0x00, 0x09, 0x0a, 0x0d, 0x20, 0x22, 0x25, 0x26, 0x2b, 0x2f, 0x3a, 0x3b, 0x3d, 0x3f, 0x7f, 0x80, 0xff,
];
const NUMBERS = [
  "0",
  "1",
  "-1",
  "9",
  "10",
  "255",
  "1000",
  "65536",
  "2147483648",
  "9007199254740992",
  "1e9",
  "0x10",
];

type Mutation = (
  input: Buffer,
  random: Random,
  corpus: readonly Buffer[],
  words: readonly string[],
) => Buffer;

/** Puts `bytes` in the place of those from `from` up to `to`. */
function replaced(input: Buffer, from: number, to: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([input.subarray(0, from), bytes, input.subarray(to)]);
}

/** A stretch of an input, short ones more often than long ones. */
function stretch(input: Buffer, random: Random): [from: number, to: number] {
  const from = random.below(input.length + 1);
  const longest = Math.min(input.length - from, 1 << random.below(10));
  return [from, from + random.below(longest + 1)];
}

function lines(input: Buffer): string[] {
  return input.toString("latin1").split(/(?<=\n)/);
}

const MUTATIONS: readonly Mutation[] = [
  // One bit, one byte.
  (input, random) => {
    const at = random.below(input.length + 1);
    return replaced(input, at, at + 1, Buffer.of((input[at] ?? 0) ^ (1 << random.below(8))));
  },
  (input, random) => {
    const at = random.below(input.length + 1);
    return replaced(input, at, at + random.below(2), Buffer.of(random.pick(BYTES)));
  },
  // A stretch left out, repeated, put elsewhere.
  (input, random) => replaced(input, ...stretch(input, random), Buffer.alloc(0)),
  (input, random) => {
    const [from, to] = stretch(input, random);
    return replaced(input, to, to, input.subarray(from, to));
  },
  (input, random) => {
    const [from, to] = stretch(input, random);
    const at = random.below(input.length + 1);
    return replaced(input, at, at, input.subarray(from, to));
  },
  // A word, here or in the place of something.
  (input, random, _, words) => {
    const at = random.below(input.length + 1);
    return replaced(input, at, at, Buffer.from(random.pick(words), "latin1"));
  },
  (input, random, _, words) =>
    replaced(input, ...stretch(input, random), Buffer.from(random.pick(words), "latin1")),
  // Another number.
  (input, random) => {
    const numbers = [...input.toString("latin1").matchAll(/\d+/g)];
    if (numbers.length === 0) return input;
    const { index, 0: digits } = random.pick(numbers) as RegExpExecArray;
    const near = String(Math.max(0, Number(digits.slice(0, 15)) + random.pick([-1, 1])));
    const other = random.below(2) === 0 ? near : random.pick(NUMBERS);
    return replaced(input, index, index + digits.length, Buffer.from(other));
  },
  // A line left out, repeated, moved.
  (input, random) => {
    const all = lines(input);
    all.splice(random.below(all.length), 1);
    return Buffer.from(all.join(""), "latin1");
  },
  (input, random) => {
    const all = lines(input);
    all.splice(random.below(all.length + 1), random.below(2), random.pick(all));
    return Buffer.from(all.join(""), "latin1");
  },
  // The beginning of this and the end of another; a line of another.
  (input, random, corpus) => {
    const other = random.pick(corpus);
    return replaced(
      input,
      random.below(input.length + 1),
      input.length,
      other.subarray(random.below(other.length + 1)),
    );
  },
  (input, random, corpus) => {
    const all = lines(input);
    all.splice(random.below(all.length + 1), 0, random.pick(lines(random.pick(corpus))));
    return Buffer.from(all.join(""), "latin1");
  },
  // Cut off.
  (input, random) => input.subarray(0, random.below(input.length + 1)),
];

function mutate(input: Buffer, corpus: readonly Buffer[], words: readonly string[], random: Random): Buffer {
  let mutated = input;
  for (let left = 1 + random.below(MUTATIONS_MAX); left > 0; left -= 1) {
    mutated = random.pick(MUTATIONS)(mutated, random, corpus, words).subarray(0, INPUT_BYTES_MAX);
  }
  return mutated;
}
