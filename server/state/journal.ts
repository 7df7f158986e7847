/**
 * The journals of a node: a file of JSON lines for each namespace, one line a change, written before the change is
 * acknowledged. What is written survives the end of the process, however it ends; it is not synced, so it does not
 * survive a power failure, and neither does the memory that it speaks of.
 *
 *   <name>.jsonl      lives          <name>.jsonl.new  is being rewritten: a leftover means nothing
 *   <name>.jsonl.bad  was found not to hold; never touched again, see `bad`
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { MillraceError } from "../../proto/errors.js";
import type { NamespaceEvent } from "../namespaces/namespaces.js";
import type { ShuffleEvent } from "../shuffles/shuffles.js";
import { encode, encodeAll, type Journaled, type Line, replay } from "./lines.js";

const SUFFIX = ".jsonl";
/** A journal is rewritten when so much of it is out of date, and half of it. */
const STALE_BYTES_MIN = 256 * 1024;

/** Why a journal cannot be gone on with; `line` counts from 1. */
export interface BadJournal {
  readonly file: string;
  readonly line: number;
  readonly reason: string;
}

interface Open {
  readonly fd: number;
  bytes: number;
  /** Of those, in lines that later ones made void. */
  staleBytes: number;
  /** Of the last line that says what the namespace has cost. */
  usageBytes: number;
  readonly bytesByShuffle: Map<string, number>;
  /** A write failed and left a piece of a line that could not be taken back: nothing may follow it. */
  broken: boolean;
}

export class Journals {
  private readonly open = new Map<string, Open>();

  /** `folder` is made where it is missing. */
  constructor(private readonly folder: string) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const file of readdirSync(folder)) {
      if (file.endsWith(`${SUFFIX}.new`)) rmSync(join(folder, file), { force: true });
    }
  }

  /** Files of journals that once were set aside and are still there. */
  bad(): string[] {
    return badJournals(this.folder);
  }

  /**
   * Takes up every journal that an earlier life left, rewritten short. What does not hold is set aside and told to
   * `onBad`; the others go on.
   */
  takeUp(onBad: (bad: BadJournal) => void): Journaled[] {
    const found: Journaled[] = [];
    for (const name of journalNames(this.folder)) {
      const file = journalFile(this.folder, name);
      const read = readJournal(file, name);
      if (read === null) {
        rmSync(file, { force: true });
      } else if ("reason" in read) {
        onBad({ ...read, file: this.setAside(name) });
      } else {
        this.rewrite(name, read);
        found.push(read);
      }
    }
    return found;
  }

  /** Writes the event down, or throws SYSTEM; then it is as if nothing had been written. */
  record(event: NamespaceEvent | ShuffleEvent): void {
    switch (event.type) {
      case "created":
        this.create(event.namespace.name, encode(event));
        break;
      case "ended":
        this.remove(event.name);
        break;
      case "renewed":
      case "used":
        this.append(event.name, event);
        break;
      default:
        this.append(event.namespace, event);
    }
  }

  /** Moves a namespace's journal out of the way and returns where it lies now. */
  setAside(name: string): string {
    this.close(name);
    const file = journalFile(this.folder, name);
    let aside = `${file}.bad`;
    for (let number = 2; existsSync(aside); number++) aside = `${file}.bad-${number}`;
    system(`set aside ${file}`, () => renameSync(file, aside));
    return aside;
  }

  /** Ends the namespace's journal: of it nothing is left. */
  remove(name: string): void {
    this.close(name);
    const file = journalFile(this.folder, name);
    system(`remove ${file}`, () => rmSync(file, { force: true }));
  }

  closeAll(): void {
    for (const name of [...this.open.keys()]) this.close(name);
  }

  private create(name: string, line: string): void {
    const file = journalFile(this.folder, name);
    this.close(name);
    const journal = begin(file);
    try {
      write(file, journal, line);
    } catch (thrown) {
      closeSync(journal.fd);
      rmSync(file, { force: true });
      throw thrown;
    }
    this.open.set(name, journal);
  }

  private append(name: string, line: Line): void {
    const journal = this.open.get(name);
    // The namespace has ended: what comes after (a shuffle's deletion that took its time) is of no use to anybody.
    if (journal === undefined) return;
    const file = journalFile(this.folder, name);
    const lineBytes = write(file, journal, encode(line));
    if (line.type === "renewed" || line.type === "used") {
      journal.staleBytes += journal.usageBytes;
      journal.usageBytes = lineBytes;
    } else if (line.type === "shuffleDeleted") {
      journal.staleBytes += lineBytes + (journal.bytesByShuffle.get(line.shuffle) ?? 0);
      journal.bytesByShuffle.delete(line.shuffle);
    } else if (line.type !== "created") {
      addShuffleBytes(journal, line.shuffle, lineBytes);
    }
    if (journal.staleBytes < Math.max(STALE_BYTES_MIN, journal.bytes / 2)) return;
    const read = readJournal(file, name);
    if (read === null || "reason" in read) {
      // Somebody else wrote into it. What is known stays in force; the next start will say what is wrong.
      journal.staleBytes = 0;
      return;
    }
    this.rewrite(name, read);
  }

  private rewrite(name: string, journaled: Journaled): void {
    const file = journalFile(this.folder, name);
    const fresh = `${file}.new`;
    const journal = begin(fresh);
    try {
      for (const { shuffle, text } of encodeAll(journaled)) {
        const lineBytes = write(fresh, journal, text);
        if (shuffle !== null) addShuffleBytes(journal, shuffle, lineBytes);
      }
      system(`rewrite ${file}`, () => renameSync(fresh, file));
    } catch (thrown) {
      closeSync(journal.fd);
      rmSync(fresh, { force: true });
      const before = this.open.get(name);
      // The long one is as good; it is tried again when more of it is out of date.
      if (before === undefined) throw thrown;
      before.staleBytes = 0;
      return;
    }
    this.close(name);
    this.open.set(name, journal);
  }

  private close(name: string): void {
    const journal = this.open.get(name);
    if (journal === undefined) return;
    this.open.delete(name);
    closeSync(journal.fd);
  }
}

/** The namespaces that have a journal in `folder`. */
export function journalNames(folder: string): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(SUFFIX))
    .map((file) => file.slice(0, -SUFFIX.length))
    .sort();
}

/** Paths of the journals in `folder` that were set aside. */
export function badJournals(folder: string): string[] {
  return readdirSync(folder)
    .filter((file) => /\.jsonl\.bad(-\d+)?$/.test(file))
    .sort()
    .map((file) => join(folder, file));
}

export function journalFile(folder: string, name: string): string {
  return join(folder, name + SUFFIX);
}

/**
 * What a journal says; null where not even its first line was finished, so that nobody was ever told of the
 * namespace. A last line without an end was being written when the process died, and is left out.
 */
export function readJournal(file: string, name: string): Journaled | BadJournal | null {
  const bytes = system(`read ${file}`, () => readFileSync(file));
  let journaled: Journaled | null = null;
  let line = 0;
  let begin = 0;
  // Line by line from the bytes: as one string a journal could be longer than a string may be.
  for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, begin)) {
    line += 1;
    try {
      journaled = replay(journaled, bytes.toString("utf8", begin, end));
      if (line === 1 && journaled.namespace.name !== name) {
        throw new Error(`it is of namespace ${JSON.stringify(journaled.namespace.name)}`);
      }
    } catch (thrown) {
      return { file, line, reason: (thrown as Error).message };
    }
    begin = end + 1;
  }
  return journaled;
}

function begin(file: string): Open {
  const fd = system(`begin ${file}`, () => openSync(file, "w", 0o600));
  return { fd, bytes: 0, staleBytes: 0, usageBytes: 0, bytesByShuffle: new Map(), broken: false };
}

function addShuffleBytes({ bytesByShuffle }: Open, shuffle: string, bytes: number): void {
  bytesByShuffle.set(shuffle, (bytesByShuffle.get(shuffle) ?? 0) + bytes);
}

/** Writes all of the line or nothing, and returns how many bytes it has. */
function write(file: string, journal: Open, line: string): number {
  if (journal.broken)
    throw new MillraceError("SYSTEM", `cannot write ${file}: an earlier write failed midway`);
  const bytes = Buffer.from(line);
  let written = 0;
  try {
    while (written < bytes.length) {
      written += writeSync(journal.fd, bytes, written, bytes.length - written, journal.bytes + written);
    }
  } catch (thrown) {
    try {
      if (written > 0) ftruncateSync(journal.fd, journal.bytes);
    } catch {
      journal.broken = true;
    }
    throw new MillraceError("SYSTEM", `cannot write ${file}: ${(thrown as Error).message}`, {
      cause: thrown,
    });
  }
  journal.bytes += bytes.length;
  return bytes.length;
}

function system<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (thrown) {
    throw new MillraceError("SYSTEM", `cannot ${what}: ${(thrown as Error).message}`, { cause: thrown });
  }
}
