/**
 * What a client is about to do to keys that it alone writes, and what was acknowledged: written down before and
 * after each operation, so that it outlives the client. From it follows what a key may hold after a kill.
 */
import { readFileSync, writeSync } from "node:fs";

/** A version of the key, or null: no object. */
type State = { version: number; sizeBytes: number } | null;

export interface JournalEntry {
  key: string;
  /** Before the operation. */
  intent?: State;
  /** After it: all intents so far for this key took place. */
  done?: true;
}

export function note(fd: number, entry: JournalEntry): void {
  writeSync(fd, `${JSON.stringify(entry)}\n`);
}

/** The states that each key may be in: the last acknowledged one, or any that was under way after it. */
export function possibleStates(path: string): Map<string, State[]> {
  const states = new Map<string, State[]>();
  for (const line of readFileSync(path, "utf8").split("\n")) {
    if (line === "") continue;
    const { key, intent, done } = JSON.parse(line) as JournalEntry;
    const possible = states.get(key) ?? [null];
    if (intent !== undefined) possible.push(intent);
    if (done) possible.splice(0, possible.length - 1);
    states.set(key, possible);
  }
  return states;
}
