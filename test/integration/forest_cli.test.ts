/** `millrace forest` as a command, on files. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import { parseModel } from "../../workloads/ml/forest/model.js";
import type { ForestDocument } from "../../workloads/ml/forest/result.js";
import { millraceCommand } from "../support/daemon.js";
import { randomOf } from "../support/random.js";
import { Workplace } from "./sort_helpers.js";

const FASHION = "/usr/share/datasets/fashion-mnist";

async function millrace(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const [command, ...first] = millraceCommand();
  try {
    const done = await promisify(execFile)(
      command,
      [...first, "forest", ...args, "--huge-pages", "off", "--dram", "2GiB"],
      { cwd: packageRoot(), maxBuffer: 64 << 20 },
    );
    return { code: 0, ...done };
  } catch (thrown) {
    const failed = thrown as { code: number; stdout: string; stderr: string };
    return { code: failed.code, stdout: failed.stdout, stderr: failed.stderr };
  }
}

/** A kind that a colour and a size tell, with gaps, and a column that tells nothing. */
function csv(rows: number, seed: number): string {
  const random = randomOf(seed).next;
  const colours = ["red", "green", "blue", "grey"];
  const lines = ["colour,size,noise,kind"];
  for (let i = 0; i < rows; i += 1) {
    const colour = colours[Math.floor(random() * 4)] as string;
    const size = Math.round(random() * 1000) / 10;
    const isBig = size > (colour === "red" || colour === "blue" ? 30 : 70);
    lines.push(
      `${random() < 0.05 ? "" : colour},${size},${random().toFixed(3)},${isBig ? "big, really" : "small"}`,
    );
  }
  return `${lines.join("\n").replaceAll("big, really", '"big, really"')}\n`;
}

describe("millrace forest", () => {
  it("trains on CSV, writes a model and a report, and predicts with it", async () => {
    using place = new Workplace();
    const input = place.write("train.csv", Buffer.from(csv(3_000, 1)));
    const test = place.write("test.csv", Buffer.from(csv(1_000, 2)));
    const model = place.at("model.json");
    const report = place.at("report.html");
    const args = ["--input", input, "--model", model, "--label", "kind", "--trees", "10", "--workers", "2"];
    const trained = await millrace("train", ...args, "--test", test, "--json", "--report", report);
    expect(trained.stderr).toBe("");
    const document = JSON.parse(trained.stdout) as ForestDocument;
    expect(document).toMatchObject({
      workload: "forest",
      task: "classify",
      rows: 3_000,
      features: 3,
      trees: 10,
    });
    expect(document.test?.accuracy).toBeGreaterThan(0.93);
    expect(document.oob?.accuracy).toBeGreaterThan(0.93);
    expect(document.importances.at(-1)?.name).toBe("noise");
    expect(Object.keys(document.phases)).toEqual(["sample", "bin", "levels", "finish", "votes"]);
    expect(document.exchange.bytes).toBeGreaterThan(0);
    const page = readFileSync(report, "utf8");
    expect(page).toContain("Accuracy by trees");
    expect(page).toContain("Importance of columns");
    expect(parseModel(readFileSync(model, "utf8"), model).trees).toHaveLength(10);

    const predicted = await millrace("predict", "--model", model, "--input", test, "--label", "kind");
    const lines = predicted.stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(1_001);
    expect(lines[0]).toBe("row,prediction");
    expect(lines.slice(1).every((line, i) => [`${i},"big, really"`, `${i},small`].includes(line))).toBe(true);
    const output = place.at("out.csv");
    const summary = await millrace(
      "predict",
      "--model",
      model,
      "--input",
      test,
      "--output",
      output,
      "--json",
    );
    expect(readFileSync(output, "utf8")).toBe(predicted.stdout);
    expect(JSON.parse(summary.stdout)).toMatchObject({ workload: "forest", rows: 1_000, badRows: 0 });
  });

  it("says what is wrong, and leaves no model then", async () => {
    using place = new Workplace();
    const input = place.write("train.csv", Buffer.from(csv(50, 3)));
    const model = place.at("model.json");
    const nobody = await millrace("train", "--input", input, "--model", model, "--label", "nobody");
    expect(nobody.code).not.toBe(0);
    expect(nobody.stderr).toContain("nobody");
    expect(existsSync(model)).toBe(false);
    const flag = await millrace("train", "--input", input, "--model", model, "--max-features", "some");
    expect(flag.code).toBe(2);
    const nowhere = await millrace("train", "--input", input, "--model", place.at("no/such/model.json"));
    expect(nowhere.code).toBe(2);
    place.write("model.json", Buffer.from('{"format":"millrace-forest","version":1}'));
    const broken = await millrace("predict", "--model", model, "--input", input);
    expect(broken.code).toBe(1);
    expect(broken.stderr).toContain("columns are wrong");
  });

  it.skipIf(!existsSync(FASHION))(
    "is as good as others on Fashion-MNIST (skipped where Debian's dataset-fashion-mnist is not installed)",
    async () => {
      using place = new Workplace();
      const args = ["--input", FASHION, "--test", FASHION, "--model", place.at("model.json")];
      const trained = await millrace(
        "train",
        ...args,
        "--trees",
        "8",
        "--seed",
        "1",
        "--workers",
        "2",
        "--json",
      );
      const { test, oob, rows } = JSON.parse(trained.stdout) as ForestDocument;
      expect(rows).toBe(60_000);
      // With 8 trees scikit-learn reaches 0.848, with 32 both reach 0.871.
      expect(test?.accuracy).toBeGreaterThan(0.84);
      expect(oob?.accuracy).toBeGreaterThan(0.8);
    },
    180_000,
  );
});
