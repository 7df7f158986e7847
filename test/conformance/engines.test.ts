/** The recipes of docs/engines.md, as they stand there, against a door. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, it } from "vitest";
import { packageRoot } from "../../native/binding/addon.js";
import { millraceCommand } from "../support/daemon.js";
import {
  clientsFolder,
  type Door,
  doorEnvironment,
  hasProgram,
  runClient,
  s3Client,
  startDoor,
} from "./door.js";

const TIMEOUT_MS = 300_000;

interface Recipe {
  title: string;
  language: "python" | "sh";
  /** What must be installed beside the Python clients. */
  needs: string;
  text: string;
}

/** Every block of code that says "python" or "sh" and is not marked "setup". */
function recipes(): Recipe[] {
  const page = readFileSync(join(packageRoot(), "docs", "engines.md"), "utf8");
  return page.split(/^## /m).flatMap((section) => {
    const title = section.slice(0, section.indexOf("\n"));
    return [...section.matchAll(/^```(python|sh) ?(\w*)\n(.*?)^```$/gms)]
      .map(([, language, needs, text]) => ({ title, language, needs, text }) as Recipe)
      .filter(({ needs }) => needs !== "setup");
  });
}

function isInstalled(needs: string): boolean {
  if (!hasProgram("python")) return false;
  if (needs === "spark") return existsSync(join(clientsFolder(), "spark-jars", "complete"));
  if (needs === "spark_s3_shuffle") return isInstalled("spark") && existsSync(shuffleJar());
  return needs === "" || hasProgram(needs);
}

/** Too large for CI; whoever has fetched one has its recipe run. */
const DOWNLOADED_BY_HAND = new Set(["spark", "spark_s3_shuffle", "restic"]);

describe("docs/engines.md", () => {
  let door: Door;
  beforeAll(async () => {
    door = await startDoor({ dram: "2GiB" });
    const client = s3Client(door);
    await client.send(new CreateBucketCommand({ Bucket: "scratch" }));
    client.destroy();
  });
  afterAll(() => door?.stop());

  for (const { title, language, needs, text } of recipes()) {
    if (DOWNLOADED_BY_HAND.has(needs) && !isInstalled(needs)) {
      console.log(`${title}: scripts/clients.sh ${needs.replaceAll("_", "-")} has not fetched it`);
      continue;
    }
    it.skipIf(!isInstalled(needs))(
      title,
      async () => {
        const folder = mkdtempSync(join(tmpdir(), "millrace-engines-"));
        try {
          const file = join(folder, language === "python" ? "recipe.py" : "recipe.sh");
          writeFileSync(file, text);
          const found = doorEnvironment(door, folder);
          const env = {
            ...found,
            PATH: `${millraceProgram(folder)}:${found.PATH}`,
            MILLRACE_HUGE_PAGES: "off",
            SPARK_JARS: sparkJars(),
            SPARK_S3_SHUFFLE_JAR: shuffleJar(),
            TMPDIR: folder,
          };
          const program =
            language === "python" ? ["python", [file]] : ["/bin/bash", ["-euo", "pipefail", file]];
          await runClient(program[0] as string, program[1] as string[], env, folder);
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      },
      TIMEOUT_MS,
    );
  }
});

/** A folder with the command `millrace` in it, which an installed package would bring along. */
function millraceProgram(folder: string): string {
  const programs = join(folder, "programs");
  mkdirSync(programs);
  const command = millraceCommand().map((word) => `'${word}'`);
  const script = `#!/bin/sh\ncd '${packageRoot()}' && exec ${command.join(" ")} "$@"\n`;
  writeFileSync(join(programs, "millrace"), script, { mode: 0o755 });
  return programs;
}

function shuffleJar(): string {
  return join(clientsFolder(), "spark-s3-shuffle.jar");
}

function sparkJars(): string {
  const folder = join(clientsFolder(), "spark-jars");
  if (!existsSync(folder)) return "";
  const jars = readdirSync(folder).filter((name) => name.endsWith(".jar"));
  return jars.map((name) => join(folder, name)).join(",");
}
