/** What is left of a mutated request when it is made HTTP again, so that it gets past node's parser. */
import type { Random } from "../../../bench/random.js";

const HEAD = /^([\s\S]*?)\r?\n\r?\n/;

export function plausible(input: Buffer, random: Random): Buffer {
  const text = input.toString("latin1");
  const found = HEAD.exec(text);
  const head = found?.[1] ?? text;
  const body = found === null ? "" : text.slice(found[0].length);
  const [line = "", ...fields] = head.split(/\r?\n/);
  const [, method, target] = /^\s*([A-Z]+)?\s*(.*?)(?: HTTP\/1\.[01])?\s*$/.exec(line) ?? [];
  // Blanks and what is no character of HTTP would end the target.
  const path = (target ?? "").replace(/[^\x21-\x7e\x80-\xff]/g, "");
  const lines = fields
    .map((field) => field.replace(/[^\t\x20-\x7e\x80-\xff]/g, ""))
    .filter((field) => /^[\w-]+:/.test(field) && !/^(transfer-encoding|content-length):/i.test(field));
  const chunked = random.below(8) === 0;
  const length = chunked ? "transfer-encoding: chunked" : `content-length: ${body.length}`;
  const sent = chunked ? `${body.length.toString(16)}\r\n${body}\r\n${body === "" ? "" : "0\r\n\r\n"}` : body;
  const request = `${method ?? "GET"} ${path === "" ? "/" : path} HTTP/1.1\r\n${[...lines, length].join("\r\n")}`;
  return Buffer.from(`${request}\r\n\r\n${sent}`, "latin1");
}
