/**
 * CSV and Parquet: DuckDB reads them once, on function workers, and leaves columns of numbers in the store, which then
 * become blocks of rows. Texts are numbered by each scan for itself, because nobody knows all of them before the end.
 */
import { MillraceError } from "../../../client/errors.js";
import { trainingInput } from "../../../client/learning.js";
import { functionRef } from "../../../functions/index.js";
import { moduleBeside } from "../../calling/module.js";
import type { BlockRef, Dataset, FeatureColumn, Label } from "../dataset.js";
import { BadRows } from "./bad_rows.js";
import type { InputFiles } from "./files.js";
import { chooseNumberLabel, chooseTextLabel, type LabelChoice, mergeLabels, mergeTexts } from "./labels.js";
import type { LoadOptions, LoadSurroundings } from "./options.js";
import { blockKey, cutRows, groupByWeight, rowsPerBlock } from "./plan.js";
import { runCalls } from "./run.js";
import type {
  DescribeResult,
  describeTable,
  ScanArgument,
  ScanCodes,
  ScanResult,
  scanTable,
  TableStretchRef,
  TableWrite,
  writeTableBlocks,
} from "./table_calls.js";
import type { TablePlan } from "./table_plan.js";

const CALLS = moduleBeside(import.meta.url, "table_calls");
const DESCRIBE = functionRef<typeof describeTable>(CALLS, "describeTable");
const SCAN = functionRef<typeof scanTable>(CALLS, "scanTable");
const WRITE = functionRef<typeof writeTableBlocks>(CALLS, "writeTableBlocks");

/** Of the time that loading takes, how far it is after describing and after reading the files. */
const DESCRIBED = 0.05;
const SCANNED = 0.75;
const SCANS_PER_WORKER = 4;
/** Of a column: more texts than this are no categories. */
const CATEGORIES_MAX = 65_536;

export async function loadTable(
  input: InputFiles,
  options: LoadOptions,
  surroundings: LoadSurroundings,
): Promise<Dataset> {
  const { like, prefix, label: labelName, task } = options;
  const { workers } = surroundings.executor;
  const choice: LabelChoice = { task, like, labelOptional: options.labelOptional ?? false };
  const format = input.format === "parquet" ? "parquet" : "csv";
  for (const { path, gzip } of input.files) {
    if (gzip && !/\.gz(?:ip)?$/i.test(path))
      throw new MillraceError("CORRUPT", `${path} is compressed: give its name the ending .gz`);
  }
  if (like?.sparse === true) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      "this is a table, and the training data was libsvm: give data of one format",
    );
  }
  const files = input.files.map(({ path, bytes }) => ({ path, bytes }));
  const [described] = await runCalls(
    surroundings,
    DESCRIBE,
    [{ format, files, choice: { ...choice, label: labelName } }],
    [0, DESCRIBED],
  );
  const { source, parts } = described as DescribeResult;
  const groups =
    format === "csv"
      ? parts.map((part) => [part])
      : groupByWeight(parts, (part) => part.bytes, SCANS_PER_WORKER * workers);
  const scanKey = (scan: number): string => `${prefix}/scan-${String(scan).padStart(5, "0")}`;
  try {
    const scans = await runCalls(
      surroundings,
      SCAN,
      groups.map(
        (group, i): ScanArgument => ({
          source,
          parts: group,
          key: scanKey(i),
          // Fewer files than function workers leave processors idle, which one call may use.
          threads: Math.max(1, Math.floor(workers / groups.length)),
          surveyLabels: like === null ? task !== "regress" : like.label.kind === "classes",
          categoriesMax: CATEGORIES_MAX,
        }),
      ),
      [DESCRIBED, SCANNED],
    );
    const bad = new BadRows();
    for (const scan of scans) bad.add(scan.badCount, scan.bad);
    const rows = scans.reduce((sum, scan) => sum + scan.rows, 0);
    if (rows === 0) throw bad.noneGood(options.paths);
    const { label, codes, columns } = mergeScans(source.plan, scans, choice);
    const { blocks, writes } = planWrites(scans, codes, source.plan, { rows, workers, prefix, scanKey });
    await runCalls(surroundings, WRITE, writes, [SCANNED, 1]);
    return {
      rows,
      features: columns.length,
      sparse: false,
      columns,
      label,
      ...(source.plan.label === null ? {} : { labelColumn: source.plan.label.name }),
      blocks,
      bad: bad.result(),
    };
  } finally {
    // What failed before matters more than what is left in a namespace that ends soon.
    await Promise.allSettled(groups.map((_, i) => surroundings.namespace.delete(scanKey(i))));
  }
}

/** What is to be predicted, the columns, and what becomes of the numbers of each scan. */
function mergeScans(
  plan: TablePlan,
  scans: readonly ScanResult[],
  choice: LabelChoice,
): { label: Label; codes: ScanCodes[]; columns: readonly FeatureColumn[] } {
  const { distinctLabelsMax } = trainingInput();
  const { like } = choice;
  const columns = like?.columns ?? plan.features.map((feature, i) => mergeColumn(feature, scans, i));
  const categories = scans.map((scan) =>
    columns.map((column, i) => {
      const texts = scan.categories[i];
      if (texts === null || texts === undefined) return null;
      const known = new Map(column.categories.map((text, code) => [text, code]));
      return Float32Array.from(texts, (text) => known.get(text) ?? Number.NaN);
    }),
  );
  if (plan.label?.kind === "categorical") {
    const texts = scans.map((scan) => scan.labelTexts ?? []);
    const { label, codes } = chooseTextLabel(texts, choice, distinctLabelsMax);
    return {
      label,
      codes: categories.map((each, i) => ({ labels: codes[i] ?? null, categories: each })),
      columns,
    };
  }
  const surveys = scans.flatMap(({ labels }) => (labels === null ? [] : [labels]));
  const { label, codes } =
    plan.label === null
      ? { label: like?.label ?? ({ kind: "number" } as const), codes: null }
      : chooseNumberLabel(mergeLabels(surveys, distinctLabelsMax), choice);
  return { label, codes: categories.map((each) => ({ labels: codes, categories: each })), columns };
}

function mergeColumn(
  { name, kind }: TablePlan["features"][number],
  scans: readonly ScanResult[],
  column: number,
): FeatureColumn {
  if (kind === "numeric") return { name, kind, categories: [] };
  const categories = mergeTexts(scans.map((scan) => scan.categories[column] ?? []));
  if (categories.length <= CATEGORIES_MAX) return { name, kind, categories };
  throw new MillraceError(
    "INVALID_ARGUMENT",
    `column ${name} has ${categories.length} distinct texts, and so hardly categories: leave it out of the files`,
  );
}

/** Blocks of equal size, each made of stretches of scans. */
function planWrites(
  scans: readonly ScanResult[],
  codes: readonly ScanCodes[],
  plan: TablePlan,
  whole: { rows: number; workers: number; prefix: string; scanKey: (scan: number) => string },
): { blocks: BlockRef[]; writes: TableWrite[] } {
  const features = plan.features.length;
  const { rows, workers, prefix, scanKey } = whole;
  const pieces = scans.flatMap((scan, i) => scan.pieces.map((piece) => ({ scan: i, piece })));
  let at = 0;
  let taken = 0;
  const planned = cutRows(rows, rowsPerBlock(rows, features, workers)).map((range, i) => {
    const stretches: TableStretchRef[] = [];
    for (let left = range.rows; left > 0; ) {
      const found = pieces[at];
      if (found === undefined) throw new MillraceError("INTERNAL", "scans have fewer rows than they said");
      const count = Math.min(left, found.piece.rows - taken);
      stretches.push({ key: scanKey(found.scan), ...found, first: taken, count });
      left -= count;
      taken += count;
      if (taken === found.piece.rows) {
        at += 1;
        taken = 0;
      }
    }
    return { key: blockKey(prefix, i), ...range, stretches };
  });
  const blocks = planned.map(({ key, firstRow, rows: count }): BlockRef => {
    const shape = { firstRow, rows: count, features, nonZeros: 0, sparse: false };
    return { key, firstRow, rows: count, nonZeros: 0, bytes: trainingInput().blockBytes(shape) };
  });
  const writes = groupByWeight(planned, (block) => block.rows, SCANS_PER_WORKER * workers).map((group) => {
    const used = new Set(group.flatMap(({ stretches }) => stretches.map(({ scan }) => scan)));
    return {
      blocks: group,
      features,
      hasLabel: plan.label !== null,
      codes: Object.fromEntries([...used].map((scan) => [scan, codes[scan] as ScanCodes])),
    };
  });
  return { blocks, writes };
}
