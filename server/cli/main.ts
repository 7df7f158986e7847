#!/usr/bin/env node
/**
 * The `millrace` command. Each subcommand is a module with `register(program)`, and only the one asked for is
 * loaded, so that none pays for another's libraries.
 */
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { reportFailure } from "./errors.js";
import { packageVersion } from "./version.js";

interface CommandModule {
  register(program: Command): void;
}

// In the order in which help lists them.
const COMMANDS: Record<string, string> = {
  serve: "./serve.js",
  put: "./objects.js",
  get: "./objects.js",
  ls: "./objects.js",
  stat: "./objects.js",
  rm: "./objects.js",
  namespace: "./namespace.js",
  sort: "./sort.js",
  sql: "./sql.js",
  forest: "./forest.js",
  cocoa: "./cocoa.js",
  bench: "./bench.js",
  doctor: "./doctor.js",
  top: "./top.js",
  inspect: "./inspect.js",
};

async function main(args: readonly string[]): Promise<void> {
  const program = new Command("millrace")
    .description("Ephemeral storage and shuffle for serverless analytics")
    .version(packageVersion())
    .exitOverride()
    .showHelpAfterError("(add --help for how to use it)")
    .enablePositionalOptions();
  const asked = args.find((argument) => !argument.startsWith("-")) ?? "";
  const only = COMMANDS[asked];
  const files = only === undefined ? new Set(Object.values(COMMANDS)) : [only];
  for (const file of files) (await load(file))?.register(program);
  if (args.length === 0) program.help({ error: true });
  await program.parseAsync(args, { from: "user" });
}

/** Null where this build lacks the command, which is then as unknown as any other word. */
async function load(file: string): Promise<CommandModule | null> {
  try {
    return (await import(file)) as CommandModule;
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    const missing = fileURLToPath(new URL(file, import.meta.url));
    if (code === "ERR_MODULE_NOT_FOUND" && message.includes(`'${missing}'`)) return null;
    throw thrown;
  }
}

// A reader that went away (`millrace ls | head -1`) is no failure of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

try {
  await main(process.argv.slice(2));
} catch (thrown) {
  process.exitCode = reportFailure(thrown);
}
