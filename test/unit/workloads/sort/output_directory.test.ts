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
import { afterEach, beforeEach, expect, it } from "vitest";
import { OutputDirectory, writePartFile } from "../../../../workloads/sort/output_directory.js";
import { isPartName, partName } from "../../../../workloads/sort/parts.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-output-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it("names parts so that they sort", () => {
  expect(partName(7)).toBe("part-00007");
  expect(partName(65_535)).toBe("part-65535");
  expect(["part-00000", "part-123456", "part-1", ".part-00000", "part-00000.x"].map(isPartName)).toEqual([
    true,
    true,
    false,
    false,
    false,
  ]);
});

it("makes missing folders and takes them away again when the run fails", async () => {
  const output = await OutputDirectory.open(join(folder, "x", "y"), false);
  await writePartFile(output.path, 0, "0.w", Buffer.from("abc"));
  expect(readdirSync(output.path)).toEqual(["part-00000"]);
  await output.remove();
  expect(existsSync(join(folder, "x"))).toBe(false);
  expect(existsSync(folder)).toBe(true);
});

it("refuses a file and a directory that is not empty", async () => {
  writeFileSync(join(folder, "file"), "");
  await expect(OutputDirectory.open(join(folder, "file"), false)).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
  });
  await expect(OutputDirectory.open(folder, false)).rejects.toThrow(/--force/);
});

it("replaces parts with force and leaves everything else alone", async () => {
  for (const name of ["part-00000", "part-00099", ".part-00001.0.w", "notes.txt"])
    writeFileSync(join(folder, name), "old");
  const output = await OutputDirectory.open(folder, true);
  expect(readdirSync(folder)).toEqual(["notes.txt"]);
  await writePartFile(folder, 0, "0.w", Buffer.from("new"));
  await output.remove();
  expect(readdirSync(folder)).toEqual(["notes.txt"]);
});

it("sweeps what attempts that died have left, and keeps the parts", async () => {
  const output = await OutputDirectory.open(join(folder, "out"), false);
  await writePartFile(output.path, 0, "0.a", Buffer.from("one"));
  await writePartFile(output.path, 0, "1.b", Buffer.from("one"));
  writeFileSync(join(output.path, ".part-00001.0.c"), "half");
  await output.keep();
  expect(readdirSync(output.path)).toEqual(["part-00000"]);
  expect(readFileSync(join(output.path, "part-00000"), "utf8")).toBe("one");
});

it("says what is wrong when a part cannot be written, and leaves nothing of it", async () => {
  await expect(writePartFile(join(folder, "gone"), 0, "0.a", Buffer.from("x"))).rejects.toMatchObject({
    code: "SYSTEM",
  });
  mkdirSync(join(folder, "part-00000"));
  await expect(writePartFile(folder, 0, "0.a", Buffer.from("x"))).rejects.toMatchObject({ code: "SYSTEM" });
  expect(readdirSync(folder)).toEqual(["part-00000"]);
});
