/**
 * The trees of a forest while they grow: the driver's side of levels. Large nodes are split level by level; where a node is
 * small enough, its whole subtree comes from one call and is put in its place. Pure.
 */
import { MillraceError } from "../../../client/errors.js";
import type { ForestNodeSums, ForestSlotSplit } from "../../../client/learning.js";

const LEVEL_MAGIC = 0x316c766c74737266n; // as native/kernels/forest_level.cc
const HEADER_BYTES = 32;
const NODE_BYTES = 40;
const SLOT_BYTES = 24;
const NONE = 0xffff_ffff;
const BIN_WORDS = 8;
const LEAF = -1;

/** A node that is not settled yet. */
export interface OpenNode {
  kind: "open";
  tree: number;
  id: bigint;
  depth: number;
  /** Of features: above 0 where those before told no rows apart. */
  round: number;
  /** Drawn rows; of roots what is to be expected. */
  rows: number;
}

interface SplitNode {
  kind: "split";
  feature: number;
  left: Uint32Array;
  gain: number;
  /** The left child's place in the tree; the right one is beside it. */
  next: number;
}

type TopNode =
  | OpenNode
  | SplitNode
  | { kind: "leaf"; sums: ForestNodeSums }
  | { kind: "grown"; tree: Subtree };

/** A tree, or a part of one, in preorder: left children follow their parents. Splits and leaves count in that order. */
export interface Subtree {
  /** -1 for leaves. */
  features: Int32Array;
  /** Of splits, where the right child is; 0 for leaves. */
  rights: Uint32Array;
  gains: Float64Array;
  /** Eight words a split: which of 256 bins go left. */
  left: Uint32Array;
  /** Of leaves: sums of the fixed-point labels (regression). */
  sums: BigInt64Array;
  /** Of leaves: where their entries end. */
  entryEnds: Uint32Array;
  entryClasses: Uint32Array;
  entryRows: Uint32Array;
}

export interface TreeLimits {
  depthMax: number;
  leafMin: number;
}

export class GrowingTrees {
  readonly #trees: TopNode[][];
  readonly #limits: TreeLimits;

  constructor(trees: number, rows: number, limits: TreeLimits) {
    this.#limits = limits;
    this.#trees = Array.from({ length: trees }, (_, tree) => [
      { kind: "open", tree, id: 0n, depth: 0, round: 0, rows },
    ]);
  }

  /** Nodes to be worked on, in the order of their trees. */
  open(): OpenNode[] {
    return this.#trees.flatMap((nodes) => nodes.filter((node): node is OpenNode => node.kind === "open"));
  }

  /** The trees as function workers read them; `slots` in the order of their trees. */
  level(slots: readonly OpenNode[]): Uint8Array {
    const numbers = new Map(slots.map((slot, i) => [slot, i]));
    const trees = this.#trees.length;
    const nodes = this.#trees.reduce((sum, tree) => sum + tree.length, 0);
    const nodesAt = HEADER_BYTES + Math.floor((trees + 2) / 2) * 2 * 4;
    const slotsAt = nodesAt + nodes * NODE_BYTES;
    const bytes = new Uint8Array(slotsAt + slots.length * SLOT_BYTES);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, LEVEL_MAGIC, true);
    view.setBigUint64(8, BigInt(trees), true);
    view.setBigUint64(16, BigInt(nodes), true);
    view.setBigUint64(24, BigInt(slots.length), true);
    let node = 0;
    this.#trees.forEach((tree, t) => {
      view.setUint32(HEADER_BYTES + 4 * t, node, true);
      for (const each of tree) {
        const at = nodesAt + node * NODE_BYTES;
        if (each.kind === "split") {
          view.setUint32(at, each.feature, true);
          view.setUint32(at + 4, each.next, true);
          each.left.forEach((word, i) => {
            view.setUint32(at + 8 + 4 * i, word, true);
          });
        } else {
          view.setUint32(at, NONE, true);
          view.setUint32(at + 4, each.kind === "open" ? (numbers.get(each) ?? NONE) : NONE, true);
        }
        node += 1;
      }
    });
    view.setUint32(HEADER_BYTES + 4 * trees, node, true);
    slots.forEach((slot, i) => {
      const at = slotsAt + i * SLOT_BYTES;
      view.setBigUint64(at, slot.id, true);
      view.setUint32(at + 8, slot.tree, true);
      view.setUint32(at + 12, slot.depth, true);
      view.setUint32(at + 16, slot.round, true);
    });
    return bytes;
  }

  /** Puts in what a level has found of its slots. */
  settle(slots: readonly OpenNode[], splits: readonly ForestSlotSplit[]): void {
    const places = this.#places();
    slots.forEach((slot, i) => {
      const split = splits[i];
      if (split === undefined) throw new MillraceError("INTERNAL", `a level has no answer for slot ${i}`);
      const tree = this.#trees[slot.tree] as TopNode[];
      const place = places.get(slot) as number;
      if (split.state === "again") {
        slot.round += 1;
      } else if (split.state === "leaf") {
        tree[place] = { kind: "leaf", sums: split.all };
      } else {
        const { feature, left, gain } = split;
        tree[place] = { kind: "split", feature, left, gain, next: tree.length };
        const depth = slot.depth + 1;
        tree.push(this.#child(slot.tree, split.leftId, depth, split.leftSums));
        tree.push(this.#child(slot.tree, split.rightId, depth, difference(split.all, split.leftSums)));
      }
    });
  }

  /** Puts in the subtrees that were grown of slots. */
  finish(slots: readonly OpenNode[], subtrees: readonly Subtree[]): void {
    const places = this.#places();
    slots.forEach((slot, i) => {
      const subtree = subtrees[i];
      if (subtree === undefined) throw new MillraceError("INTERNAL", `no subtree has come for slot ${i}`);
      (this.#trees[slot.tree] as TopNode[])[places.get(slot) as number] = { kind: "grown", tree: subtree };
    });
  }

  /** One tree, whole. Nothing of it may be open. */
  tree(number: number): Subtree {
    return join(this.#trees[number] as TopNode[]);
  }

  #places(): Map<TopNode, number> {
    const places = new Map<TopNode, number>();
    for (const tree of this.#trees) {
      tree.forEach((node, place) => {
        places.set(node, place);
      });
    }
    return places;
  }

  /** What the sums alone say need not be looked at again. */
  #child(tree: number, id: bigint, depth: number, sums: ForestNodeSums): TopNode {
    const isPure = sums.classRows.length > 0 && sums.classRows.filter((rows) => rows > 0).length <= 1;
    const { depthMax, leafMin } = this.#limits;
    if (isPure || depth >= depthMax || sums.rows < 2 * leafMin) return { kind: "leaf", sums };
    return { kind: "open", tree, id, depth, round: 0, rows: sums.rows };
  }
}

function difference(all: ForestNodeSums, part: ForestNodeSums): ForestNodeSums {
  return {
    rows: all.rows - part.rows,
    sum: all.sum - part.sum,
    classRows: all.classRows.map((rows, i) => rows - (part.classRows[i] as number)),
  };
}

function join(nodes: readonly TopNode[]): Subtree {
  const parts: Subtree[] = [];
  const rightOf = new Map<number, number>();
  // In preorder; a right child tells its parent where it is.
  const stack: { node: TopNode; parent: number | null }[] = [{ node: nodes[0] as TopNode, parent: null }];
  let count = 0;
  const begins: number[] = [];
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const { node, parent } = next;
    if (parent !== null) rightOf.set(parent, count);
    begins.push(count);
    const part = node.kind === "grown" ? node.tree : asPart(node);
    parts.push(part);
    if (node.kind === "split") {
      stack.push({ node: nodes[node.next + 1] as TopNode, parent: count });
      stack.push({ node: nodes[node.next] as TopNode, parent: null });
    }
    count += part.features.length;
  }
  const rights = new Uint32Array(count);
  const ends = new Uint32Array(parts.reduce((sum, part) => sum + part.entryEnds.length, 0));
  let leaf = 0;
  let entries = 0;
  parts.forEach((part, i) => {
    const begin = begins[i] as number;
    for (let j = 0; j < part.rights.length; j += 1) {
      const right = part.rights[j] as number;
      rights[begin + j] = right === 0 ? 0 : begin + right;
    }
    for (const end of part.entryEnds) ends[leaf++] = entries + end;
    entries += part.entryRows.length;
  });
  for (const [parent, right] of rightOf) rights[parent] = right;
  return {
    features: concat(
      parts.map((part) => part.features),
      (length) => new Int32Array(length),
    ),
    rights,
    gains: concat(
      parts.map((part) => part.gains),
      (length) => new Float64Array(length),
    ),
    left: concat(
      parts.map((part) => part.left),
      (length) => new Uint32Array(length),
    ),
    sums: concat(
      parts.map((part) => part.sums),
      (length) => new BigInt64Array(length),
    ),
    entryEnds: ends,
    entryClasses: concat(
      parts.map((part) => part.entryClasses),
      (length) => new Uint32Array(length),
    ),
    entryRows: concat(
      parts.map((part) => part.entryRows),
      (length) => new Uint32Array(length),
    ),
  };
}

interface Concatenated<T> {
  readonly length: number;
  set(from: T, offset: number): void;
}

function concat<T extends Concatenated<T>>(parts: readonly T[], make: (length: number) => T): T {
  const whole = make(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A node by itself. Its right child is not known here. */
function asPart(node: TopNode): Subtree {
  const none = new Uint32Array(0);
  if (node.kind === "split") {
    return {
      features: Int32Array.of(node.feature),
      rights: Uint32Array.of(0),
      gains: Float64Array.of(node.gain),
      left: node.left,
      sums: new BigInt64Array(0),
      entryEnds: none,
      entryClasses: none,
      entryRows: none,
    };
  }
  if (node.kind !== "leaf") throw new MillraceError("INTERNAL", "a tree is not grown to its end");
  const { sums } = node;
  const isRegression = sums.classRows.length === 0;
  const classes = isRegression
    ? [0]
    : [...sums.classRows.keys()].filter((c) => (sums.classRows[c] as number) > 0);
  return {
    features: Int32Array.of(LEAF),
    rights: Uint32Array.of(0),
    gains: new Float64Array(0),
    left: none,
    sums: isRegression ? BigInt64Array.of(sums.sum) : new BigInt64Array(0),
    entryEnds: Uint32Array.of(classes.length),
    entryClasses: Uint32Array.from(classes),
    entryRows: Uint32Array.from(classes, (c) => (isRegression ? sums.rows : (sums.classRows[c] as number))),
  };
}

/** The subtrees of one call, as native/kernels/forest_finish.h lays them out. */
export function readSubtrees(bytes: Uint8Array, count: number, isRegression: boolean): Subtree[] {
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : Uint8Array.from(bytes);
  const { buffer, byteOffset } = aligned;
  const subtrees: Subtree[] = [];
  let at = 0;
  const take = <T>(Kind: new (b: ArrayBufferLike, o: number, n: number) => T, size: number, n: number): T => {
    if (at + size * n > aligned.length) throw new MillraceError("CORRUPT", "a subtree is cut off");
    const taken = new Kind(buffer, byteOffset + at, n);
    at += size * n;
    return taken;
  };
  for (let i = 0; i < count; i += 1) {
    const header = take(BigUint64Array, 8, 4);
    const [nodes, splits, entries] = [Number(header[0]), Number(header[1]), Number(header[2])];
    const leaves = nodes - splits;
    const gains = take(Float64Array, 8, splits);
    const left = take(Uint32Array, 4, splits * BIN_WORDS);
    const sums = take(BigInt64Array, 8, isRegression ? leaves : 0);
    const features = take(Int32Array, 4, nodes);
    const rights = take(Uint32Array, 4, nodes);
    const entryEnds = take(Uint32Array, 4, leaves);
    const entryClasses = take(Uint32Array, 4, entries);
    const entryRows = take(Uint32Array, 4, entries);
    at = Math.ceil(at / 8) * 8;
    subtrees.push({ features, rights, gains, left, sums, entryEnds, entryClasses, entryRows });
  }
  if (at !== aligned.length) throw new MillraceError("CORRUPT", "subtrees have bytes of nothing");
  return subtrees;
}
