/** Which exchange `--store` means, and opening it on either side. */
import { resolve } from "node:path";
import { MillraceError } from "../../client/errors.js";
import type { Namespace } from "../../client/index.js";
import type { Exchange, ExchangePlan, ExchangeSetup } from "./exchange.js";
import { FileExchange, setUpFileExchange } from "./file.js";
import { MillraceExchange, setUpMillraceExchange } from "./millrace.js";
import { MillraceObjectExchange, setUpMillraceObjectExchange } from "./millrace_object.js";
import { parseS3Url } from "./s3_url.js";

/** What `--store` names, checked; plain data that travels to function workers. */
export type StoreChoice =
  | { kind: "millrace" }
  | { kind: "redis"; url: string }
  | { kind: "s3"; url: string }
  | { kind: "file"; directory: string };

/** Reads the value of `--store`. INVALID_ARGUMENT where it is none. */
export function parseStore(value: string): StoreChoice {
  if (value === "millrace") return { kind: "millrace" };
  if (/^rediss?:\/\/[^/]+/.test(value)) return { kind: "redis", url: value };
  if (value.startsWith("s3://")) {
    parseS3Url(value);
    return { kind: "s3", url: value };
  }
  if (value.startsWith("file://") && value.length > "file://".length) {
    return { kind: "file", directory: resolve(value.slice("file://".length)) };
  }
  throw new MillraceError(
    "INVALID_ARGUMENT",
    `${value} is no store: use millrace, redis://HOST:PORT, s3://BUCKET/PREFIX, or file://DIR`,
  );
}

/** The driver's side. Fails at once where the store cannot be reached. */
export async function setUpExchange(
  store: StoreChoice,
  plan: ExchangePlan,
  namespace: Namespace,
): Promise<ExchangeSetup> {
  switch (store.kind) {
    case "millrace":
      return plan.isSmall
        ? setUpMillraceObjectExchange(namespace, plan)
        : setUpMillraceExchange(namespace, plan);
    case "file":
      return setUpFileExchange(store.directory, plan.run);
    // The SDKs of other stores are large: loaded only where they are asked for.
    case "redis":
      return (await import("./redis.js")).setUpRedisExchange(store.url, plan.run);
    case "s3":
      return (await import("./s3.js")).setUpS3Exchange(store.url, plan.run);
  }
}

/** A function worker's side. */
export async function openExchange(
  store: StoreChoice,
  plan: ExchangePlan,
  namespace: Namespace,
): Promise<Exchange> {
  switch (store.kind) {
    case "millrace":
      return plan.isSmall
        ? new MillraceObjectExchange(namespace, plan)
        : MillraceExchange.open(namespace, plan);
    case "file":
      return new FileExchange(store.directory, plan);
    case "redis":
      return new (await import("./redis.js")).RedisExchange(store.url, plan);
    case "s3":
      return new (await import("./s3.js")).S3Exchange(store.url, plan);
  }
}
