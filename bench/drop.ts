/** Dropping a namespace must not depend on how many objects it has. */
import { type BenchFigure, type BenchOptions, comparedFigure } from "./figure.js";
import { median, rounded } from "./measure.js";
import { freshName, type Workbench, withWorkbench } from "./workbench.js";

const MANY = 1_000_000;
const FEW = 1_000;
const MANY_BYTES = 100;

export function run(options: BenchOptions): Promise<BenchFigure[]> {
  return withWorkbench(options, measure);
}

async function measure(workbench: Workbench): Promise<BenchFigure[]> {
  const { options } = workbench;
  const daemon = await workbench.daemon();
  const client = await workbench.client(daemon, "shm", { expectedBytes: 0 });
  const many = Math.max(2 * FEW, Math.round(MANY * options.scale));
  const fewBytes = Math.round((many * MANY_BYTES) / FEW);
  const until = performance.now() + options.seconds * 1000;
  const fillAndDrop = async (keys: number, sizeBytes: number): Promise<number> => {
    const namespace = freshName();
    await client.run("fillNamespace", { namespace, keys, sizeBytes });
    return client.run("drop", { namespace });
  };
  await fillAndDrop(FEW, MANY_BYTES);
  const seconds: { many: number[]; few: number[] } = { many: [], few: [] };
  // Filling takes far longer than what is measured, so rounds end where the time is up.
  do {
    seconds.many.push(await fillAndDrop(many, MANY_BYTES));
    seconds.few.push(await fillAndDrop(FEW, fewBytes));
  } while (seconds.many.length < options.rounds && performance.now() < until);
  return [
    comparedFigure(
      `drop of ${many.toLocaleString("en")} objects of ${MANY_BYTES} B`,
      rounded(median(seconds.many) * 1000),
      "ms",
      {
        name: `of ${FEW.toLocaleString("en")} objects of ${fewBytes.toLocaleString("en")} B`,
        figure: rounded(median(seconds.few) * 1000),
      },
      "<= 2x",
      { rounds: seconds.many.length },
    ),
  ];
}
