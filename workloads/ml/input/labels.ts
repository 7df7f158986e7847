/** Which labels there are becomes what is to be predicted. Pure. */
import { MillraceError } from "../../../client/errors.js";
import type { LabelCodes, LabelSurvey } from "../../../client/learning.js";
import type { Dataset, Label } from "../dataset.js";

/** Whole numbers of which there are more than this are numbers, and no classes, unless one says so. */
export const CLASSES_BY_THEMSELVES_MAX = 100;

export interface LabelChoice {
  task: "classify" | "regress" | null;
  like: Dataset | null;
  labelOptional: boolean;
}

/** What is to be predicted, and what becomes of the labels in the files. */
export interface ChosenLabel {
  label: Label;
  /** Of labels that are numbers. Null: they stay as they are. */
  codes: LabelCodes | null;
}

/** The labels of several files together. */
export function mergeLabels(surveys: readonly LabelSurvey[], distinctMax: number): LabelSurvey {
  const distinct = new Set<number>();
  let tooMany = false;
  let allWhole = true;
  for (const survey of surveys) {
    for (const value of survey.distinct) distinct.add(value);
    tooMany ||= survey.tooMany;
    allWhole &&= survey.allWhole;
  }
  tooMany ||= distinct.size > distinctMax;
  return {
    distinct: tooMany ? new Float64Array(0) : Float64Array.from(distinct).sort(),
    tooMany,
    allWhole,
  };
}

/** Of labels that are numbers. */
export function chooseNumberLabel(found: LabelSurvey, choice: LabelChoice): ChosenLabel {
  const { like, task, labelOptional } = choice;
  if (like !== null) {
    if (like.label.kind === "number") return { label: like.label, codes: null };
    if (found.tooMany) throw unseen(like.label.classes, null);
    const codes = codesIn([...found.distinct].map(String), like.label.classes, labelOptional);
    return { label: like.label, codes: { values: found.distinct, codes } };
  }
  const byThemselves = found.allWhole && !found.tooMany && found.distinct.length <= CLASSES_BY_THEMSELVES_MAX;
  if (task === "regress" || (task === null && !byThemselves))
    return { label: { kind: "number" }, codes: null };
  if (found.tooMany) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      "there are too many distinct labels for classes: they look like numbers to be predicted by regression",
    );
  }
  return {
    label: { kind: "classes", classes: [...found.distinct].map(String) },
    codes: { values: found.distinct, codes: Float64Array.from(found.distinct, (_, i) => i) },
  };
}

/** Of labels that are text, which each scan has numbered by itself: the codes of each scan's. */
export function chooseTextLabel(
  scans: readonly (readonly string[])[],
  choice: LabelChoice,
  distinctMax: number,
): { label: Label; codes: LabelCodes[] } {
  const { like, task, labelOptional } = choice;
  if (like?.label.kind === "number" || (like === null && task === "regress")) {
    throw new MillraceError("INVALID_ARGUMENT", "the label is text, and regression needs numbers");
  }
  const classes = like === null ? mergeTexts(scans) : like.label.kind === "classes" ? like.label.classes : [];
  if (like === null && classes.length > distinctMax) {
    throw new MillraceError(
      "INVALID_ARGUMENT",
      `the label has ${classes.length} distinct texts, and at most ${distinctMax} classes can be told apart`,
    );
  }
  return {
    label: like?.label ?? { kind: "classes", classes },
    codes: scans.map((texts) => ({
      values: Float64Array.from(texts, (_, i) => i),
      codes: codesIn(texts, classes, labelOptional),
    })),
  };
}

/** Sorted, each once. */
export function mergeTexts(lists: readonly (readonly string[])[]): string[] {
  return [...new Set(lists.flat())].sort();
}

function codesIn(names: readonly string[], classes: readonly string[], labelOptional: boolean): Float64Array {
  const known = new Map(classes.map((name, i) => [name, i]));
  return Float64Array.from(names, (name) => {
    const code = known.get(name);
    if (code !== undefined) return code;
    if (labelOptional) return Number.NaN;
    throw unseen(classes, name);
  });
}

/** Classes that an error names. */
const CLASSES_NAMED = 20;

function unseen(classes: readonly string[], name: string | null): MillraceError {
  const known = classes.slice(0, CLASSES_NAMED).join(", ") + (classes.length > CLASSES_NAMED ? ", …" : "");
  return new MillraceError(
    "INVALID_ARGUMENT",
    `${name === null ? "there are labels" : `there is a label ${name}`} that the training data does not have; its ` +
      `classes are ${known}`,
  );
}
