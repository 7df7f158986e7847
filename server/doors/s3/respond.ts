/** Answers of the S3 door. */
import type { ServerResponse } from "node:http";
import type { S3Call } from "./call.js";
import type { S3Error } from "./errors.js";
import { element } from "./xml.js";

const XML_TYPE = "application/xml";
const XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** Sends a head, with what every answer says. All at once: headers that are set one by one cost more to write. */
export function sendHead(
  response: ServerResponse,
  id: string,
  status: number,
  headers: Readonly<Record<string, string | number>>,
): void {
  response.writeHead(status, {
    "x-amz-request-id": id,
    "x-amz-id-2": HOST_ID,
    Server: "Millrace",
    ...headers,
  });
}

export function sendXml(call: S3Call, status: number, xml: string): void {
  const bytes = Buffer.from(XML_HEAD + xml);
  sendHead(call.response, call.request.id, status, {
    "Content-Type": XML_TYPE,
    "Content-Length": bytes.length,
  });
  call.response.end(bytes);
}

export function sendEmpty(
  call: S3Call,
  status: number,
  headers: Readonly<Record<string, string>> = {},
): void {
  // A 204 or 304 has no body and so no length either.
  const length = status === 204 || status === 304 ? {} : { "Content-Length": "0" };
  sendHead(call.response, call.request.id, status, { ...length, ...headers });
  call.response.end();
}

/**
 * Sends all of an error's answer but its end, so that the caller of this may drain what the client still sends before
 * the connection goes. `resource` is the path as it was asked for.
 */
export function writeError(response: ServerResponse, error: S3Error, resource: string, id: string): void {
  const { status, headers } = error;
  // Answers to HEAD have no body, nor has a 304.
  const bodiless = response.req.method === "HEAD" || status === 304;
  if (bodiless) {
    sendHead(response, id, status, status === 304 ? headers : { ...headers, "Content-Type": XML_TYPE });
    response.flushHeaders();
    return;
  }
  const bytes = Buffer.from(errorXml(error, resource, id));
  sendHead(response, id, status, { ...headers, "Content-Type": XML_TYPE, "Content-Length": bytes.length });
  response.write(bytes);
}

export function errorXml(error: S3Error, resource: string, id: string): string {
  const details = Object.entries(error.details).map(([name, value]) => element(name, value));
  return (
    `${XML_HEAD}<Error>${element("Code", error.code)}${element("Message", error.message)}${details.join("")}` +
    `${element("Resource", resource)}${element("RequestId", id)}${element("HostId", HOST_ID)}</Error>`
  );
}

/** In `x-amz-id-2` and errors: which server it was. There is nothing behind this door that a caller could name. */
export const HOST_ID = "millrace";
