/**
 * A real daemon with its S3 door open, and programs of others that are pointed at it. With MILLRACE_CONFORMANCE_S3
 * (http://HOST:PORT) the same tests run against any other S3 server that has the same keys, which tells a fault of the
 * tests from one of the door.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { S3Client } from "@aws-sdk/client-s3";
import { packageRoot } from "../../native/binding/addon.js";
import type { Daemon, DaemonOptions } from "../support/daemon.js";
import { ACCESS_KEY, SECRET_KEY, startS3Daemon } from "../support/s3.js";

export interface Door {
  /** http://HOST:PORT */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Null: the door is somebody else's. */
  readonly daemon: Daemon | null;
  stop(): Promise<void>;
}

export const REGION = "us-east-1";

export async function startDoor(options: DaemonOptions = {}): Promise<Door> {
  const elsewhere = process.env.MILLRACE_CONFORMANCE_S3;
  if (elsewhere !== undefined) {
    const { hostname, port } = new URL(elsewhere);
    return { url: elsewhere, host: hostname, port: Number(port), daemon: null, stop: async () => {} };
  }
  const { daemon, url, host, port } = await startS3Daemon({ dram: "1GiB", ...options });
  return { url, host, port, daemon, stop: async () => void (await daemon.stop()) };
}

export function s3Client(door: Door): S3Client {
  return new S3Client({
    endpoint: door.url,
    region: REGION,
    forcePathStyle: true,
    credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
  });
}

/** What programs find the door by. Neither a user's own configuration nor a proxy gets in between. */
export function doorEnvironment(door: Door, home: string): Record<string, string> {
  return {
    PATH: `${join(clientsFolder(), "bin")}:${process.env.PATH ?? ""}`,
    HOME: home,
    AWS_ENDPOINT_URL: door.url,
    AWS_ACCESS_KEY_ID: ACCESS_KEY,
    AWS_SECRET_ACCESS_KEY: SECRET_KEY,
    AWS_REGION: REGION,
    AWS_DEFAULT_REGION: REGION,
    AWS_CONFIG_FILE: "/dev/null",
    AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_PAGER: "",
    LANG: "C.UTF-8",
    PYTHONDONTWRITEBYTECODE: "1",
  };
}

export function clientsFolder(): string {
  return join(packageRoot(), "build", "clients");
}

/** Whether scripts/clients.sh has installed this program. */
export function hasProgram(name: string): boolean {
  return existsSync(join(clientsFolder(), "bin", name));
}

/** Runs a program of build/clients, or one by its path, to its end. Rejects with all that it wrote where it fails. */
export function runClient(
  name: string,
  args: readonly string[],
  env: Record<string, string>,
  folder: string,
): Promise<Buffer> {
  return new Promise((settle, reject) => {
    const child = spawn(resolve(clientsFolder(), "bin", name), args, {
      cwd: folder,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const output: Buffer[] = [];
    const errors: Buffer[] = [];
    child.stdout.on("data", (bytes: Buffer) => output.push(bytes));
    child.stderr.on("data", (bytes: Buffer) => errors.push(bytes));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) return settle(Buffer.concat(output));
      const said = Buffer.concat([...output, ...errors]).toString();
      reject(new Error(`${name} ${args.join(" ")} ended with ${signal ?? `status ${code}`}:\n${said}`));
    });
  });
}
