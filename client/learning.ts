/** The native kernels of machine learning, for trainers over rows in the store. */
import { type ForestKernels, type Learning, loadAddon, type TrainingInput } from "../native/binding/addon.js";
import { MillraceError } from "./errors.js";

export type {
  DealOptions,
  DualAscentProblem,
  ForestBinTables,
  ForestKernels,
  ForestLabelFacts,
  ForestNodeSums,
  ForestSettings,
  ForestSlotSplit,
  ForestTally,
  LabelCodes,
  LabelSurvey,
  Learning,
  LibsvmOptions,
  LibsvmSurvey,
  PartedOutput,
  TableStretch,
  TextFault,
  TrainingInput,
  TrainingShape,
} from "../native/binding/addon.js";

/** The kernels. UNSUPPORTED where the native addon is not built for this machine. */
export function learning(): Learning {
  const addon = loadAddon();
  if (addon === null) {
    throw new MillraceError("UNSUPPORTED", "training needs the native addon; run `npm run build:native`");
  }
  return addon.learning;
}

/** What turns files into blocks of rows. UNSUPPORTED where the native addon is not built for this machine. */
export function trainingInput(): TrainingInput {
  const addon = loadAddon();
  if (addon === null) {
    throw new MillraceError("UNSUPPORTED", "training needs the native addon; run `npm run build:native`");
  }
  return addon.trainingInput;
}

/** What grows trees and asks them. UNSUPPORTED where the native addon is not built for this machine. */
export function forestKernels(): ForestKernels {
  const addon = loadAddon();
  if (addon === null) {
    throw new MillraceError("UNSUPPORTED", "training needs the native addon; run `npm run build:native`");
  }
  return addon.forest;
}
