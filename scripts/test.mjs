// The one test command: `npm test`. Runs every kind of test, says what it skipped and why, and ends with the
// line `N passed, N failed, N skipped`. On CI (CI=true) a missing tool is a failure and nothing is skipped.
//
//   npm test                       everything
//   npm test -- unit native        some parts (see PARTS at the end)
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const build = join(root, "build");
const onCi = process.env.CI === "true";
const jobs = String(cpus().length);
/** Seconds that each fuzzer runs. */
const fuzzSeconds = process.env.MILLRACE_FUZZ_SECONDS ?? "20";

const total = { passed: 0, failed: 0, skipped: 0 };
const notes = [];

function run(command, args, options = {}) {
  console.log(`\n$ ${[command, ...args].join(" ")}`);
  const done = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  return done.status === 0;
}

/** As `run`, beside others. */
function start(command, args, options = {}) {
  console.log(`\n$ ${[command, ...args].join(" ")}`);
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", ...options });
    child.once("error", () => resolve(false));
    child.once("exit", (status) => resolve(status === 0));
  });
}

function has(command) {
  return spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
}

function count(name, passed, failed, skipped = 0) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  if (failed > 0) notes.push(`failed: ${name}${failed > 1 ? ` (${failed})` : ""}`);
  if (skipped > 0) notes.push(`skipped: ${skipped} in ${name}`);
}

function check(name, ok) {
  count(name, ok ? 1 : 0, ok ? 0 : 1);
  return ok;
}

function skip(name, why) {
  if (onCi) count(`${name}: ${why}, and on CI nothing is skipped`, 0, 1);
  else {
    total.skipped += 1;
    notes.push(`skipped: ${name} (${why})`);
  }
}

function readJson(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : null;
}

function style() {
  check("biome", run("npx", ["biome", "check", "."]));
  check("import rules", run("npm", ["run", "--silent", "imports"]));
  check("include rules", run("node", ["scripts/includes.mjs"]));
  check("types", run("npm", ["run", "--silent", "typecheck"]));
}

/** Configures and builds native/ into build/<folder>. */
function buildNative(folder, settings, environment = {}) {
  const env = { ...process.env, ...environment };
  const into = join(build, folder);
  return (
    run("cmake", ["-S", "native", "-B", into, "-DCMAKE_BUILD_TYPE=Release", ...settings], { env }) &&
    run("cmake", ["--build", into, "--parallel", jobs], { env })
  );
}

/** In two processes, each with every second test: some tests wait, others compute. */
async function runGoogleTests(name, folder) {
  const shards = [0, 1].map((shard) => ({ shard, report: join(build, `${folder}-${shard}.json`) }));
  for (const { report } of shards) rmSync(report, { force: true });
  const ended = await Promise.all(
    shards.map(({ shard, report }) =>
      start(
        join(build, folder, "millrace_native_tests"),
        ["--gtest_brief=1", `--gtest_output=json:${report}`],
        {
          env: { ...process.env, GTEST_TOTAL_SHARDS: "2", GTEST_SHARD_INDEX: String(shard) },
        },
      ),
    ),
  );
  for (const { shard, report } of shards) {
    const result = readJson(report);
    if (result === null) {
      check(`${name}: crashed before its report`, false);
      continue;
    }
    const failed = result.failures + result.errors;
    count(name, result.tests - failed - (result.disabled ?? 0), failed, result.disabled ?? 0);
    if (!ended[shard] && failed === 0) check(`${name}: exit status`, false);
  }
}

async function native() {
  // Where `npm run build` builds the addon: most of the code is the same, and is compiled once.
  if (!check("native tests build", buildNative("native", ["-DMILLRACE_TESTS=ON"]))) return;
  await runGoogleTests("native tests", "native");
}

async function sanitizers() {
  if (!has("clang++")) return skip("native tests under ASan and UBSan, fuzzers", "clang++ is not installed");
  const clang = { CC: "clang", CXX: "clang++" };
  const settings = [
    "-DMILLRACE_TESTS=ON",
    "-DMILLRACE_FUZZ=ON",
    "-DMILLRACE_ADDON=OFF",
    "-DMILLRACE_BENCH=OFF",
    "-DMILLRACE_SANITIZE=address,undefined",
  ];
  if (!check("sanitized build", buildNative("native-asan", settings, clang))) return;
  await runGoogleTests("native tests under ASan and UBSan", "native-asan");
  const fuzzers = readdirSync(join(root, "native", "test", "fuzz"))
    .filter((file) => file.endsWith("_fuzz.cc"))
    .map((file) => file.replace(/\.cc$/, ""));
  const ended = await Promise.all(fuzzers.map((name) => fuzz(name)));
  for (const [i, name] of fuzzers.entries()) check(name, ended[i]);
}

function fuzz(name) {
  const corpus = join(build, "corpus", name);
  mkdirSync(corpus, { recursive: true });
  return start(join(build, "native-asan", name), [
    `-max_total_time=${fuzzSeconds}`,
    "-print_final_stats=1",
    "-verbosity=0",
    `-artifact_prefix=${corpus}-`,
    corpus,
  ]);
}

function vitest(name, folder, { node = process.execPath, files = 1, exclude = [] } = {}) {
  const report = join(build, `vitest-${folder.replace(/\W/g, "-")}-${name.replace(/\W/g, "-")}.json`);
  rmSync(report, { force: true });
  mkdirSync(build, { recursive: true });
  const ok = run(node, [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    folder,
    ...exclude.flatMap((pattern) => ["--exclude", pattern]),
    ...(files > 1 ? ["--fileParallelism", `--maxWorkers=${files}`] : []),
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ]);
  const result = readJson(report);
  if (result === null) return check(`${name}: crashed before its report`, false);
  count(name, result.numPassedTests, result.numFailedTests, result.numPendingTests + result.numTodoTests);
  if (!ok && result.numFailedTests === 0) check(`${name}: exit status`, false);
}

function builds() {
  if (!check("build", run("npm", ["run", "--silent", "build"]))) return;
  // Processes that tests start run what was built: from sources each would take half a second more to start.
  process.env.MILLRACE_TEST_DIST = "1";
}

function unit() {
  vitest("unit tests", "test/unit", { files: 2 });
}

function integration() {
  if (!has("redis-server")) skip("tests that need Redis", "redis-server is not installed");
  if (!existsSync(join(build, "moto", "bin", "moto_server"))) {
    skip(
      "the sort's --store s3://",
      "no S3 server: python3 -m venv build/moto && build/moto/bin/pip install 'moto[server]'",
    );
  }
  // Much of it is waiting: for leases, restarts, deadlines.
  vitest("integration tests", "test/integration", { files: 3 });
}

/** Other people's S3 clients and engines against the S3 door. */
function conformance() {
  if (!existsSync(join(build, "clients", "requirements.txt"))) {
    return skip("S3 clients against the S3 door", "scripts/clients.sh has not installed them");
  }
  vitest("conformance tests", "test/conformance", { files: 2 });
}

function stress() {
  vitest("stress and kill tests", "test/stress", { files: 2 });
}

/** The same addon and the same sources on the newest Node that the project supports. */
function node24() {
  const folder = join(build, "node24");
  const node = join(folder, "node_modules", "node", "bin", "node");
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, "node@24"]);
  }
  if (!existsSync(node)) return skip("tests on Node 24", "npm's node@24 could not be installed");
  // Planning SQL is the same everywhere, and there are very many cases of it.
  vitest("unit tests on Node 24", "test/unit", {
    node,
    files: 2,
    exclude: ["test/unit/workloads/sql/plan/**"],
  });
  vitest("client tests on Node 24", "test/integration/client", { node, files: 3 });
}

const PARTS = { style, native, sanitizers, builds, unit, integration, conformance, stress, node24 };

const asked = process.argv.slice(2);
for (const name of asked) {
  if (!(name in PARTS)) {
    console.error(`no such part: ${name}; there are ${Object.keys(PARTS).join(", ")}`);
    process.exit(2);
  }
}
for (const [name, part] of Object.entries(PARTS)) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  const started = Date.now();
  console.log(`\n=== ${name}`);
  await part();
  console.log(`=== ${name}: ${((Date.now() - started) / 1000).toFixed(0)} s`);
}

console.log("");
for (const note of notes) console.log(note);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed > 0 ? 1 : 0;
