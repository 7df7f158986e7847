/** XML of S3's requests and answers: reading with a bounded parser, writing with templates. */
import { isUtf8 } from "node:buffer";
import sax from "sax";
import { openBody } from "./body.js";
import { hasBody, type S3Call } from "./call.js";
import { S3Error } from "./errors.js";

export const S3_XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/";

/** An element as it was read: text of leaves, children in their order. Attributes are left out. */
export interface XmlElement {
  readonly name: string;
  readonly text: string;
  readonly children: readonly XmlElement[];
}

const DEPTH_MAX = 16;
// A completed upload names 10,000 parts with up to four elements each.
const ELEMENTS_MAX = 60_000;
// Of one element; more than any name, value or date that S3 knows.
const TEXT_CHARACTERS_MAX = 16_384;

// Strict entities: the five of XML and numbered ones; nothing that a document could define. (Its types lack the option.)
const SAX_OPTIONS: sax.SAXOptions & { strictEntities: boolean } = { strictEntities: true, position: false };

interface OpenElement {
  readonly name: string;
  text: string;
  readonly children: XmlElement[];
}

/** The root element. Names lose their namespace prefix. Throws MalformedXML. */
export function parseXml(bytes: Buffer): XmlElement {
  if (!isUtf8(bytes)) throw malformed("it is not UTF-8");
  const parser = sax.parser(true, SAX_OPTIONS);
  const open: OpenElement[] = [];
  let root: XmlElement | null = null;
  let elements = 0;
  const addText = (text: string) => {
    const element = open.at(-1);
    if (element === undefined) return;
    element.text += text;
    if (element.text.length > TEXT_CHARACTERS_MAX) throw malformed(`<${shown(element.name)}> is too long`);
  };
  parser.onerror = (error) => {
    throw malformed(error.message.split("\n", 1)[0] as string);
  };
  parser.ondoctype = () => {
    throw malformed("it has a document type, which is refused");
  };
  parser.onsgmldeclaration = () => {
    throw malformed("it has a declaration, which is refused");
  };
  parser.onopentag = ({ name }) => {
    elements += 1;
    if (elements > ELEMENTS_MAX) throw malformed(`it has more than ${ELEMENTS_MAX} elements`);
    if (open.length === DEPTH_MAX) throw malformed(`it is nested deeper than ${DEPTH_MAX}`);
    if (root !== null) throw malformed("it has two root elements");
    open.push({ name: name.slice(name.indexOf(":") + 1), text: "", children: [] });
  };
  parser.ontext = addText;
  parser.oncdata = addText;
  parser.onclosetag = () => {
    const element = open.pop() as OpenElement;
    const parent = open.at(-1);
    if (parent === undefined) root = element;
    else parent.children.push(element);
  };
  const text = bytes.toString();
  parser.write(text.startsWith("\ufeff") ? text.slice(1) : text).close();
  if (root === null) throw malformed("it has no element");
  return root;
}

/** The body of a request as it came, at most `maxBytes` of it. Throws MalformedXML where there is more. */
export async function readBytes(call: S3Call, maxBytes: number): Promise<Buffer> {
  if (!hasBody(call.request.message)) return Buffer.alloc(0);
  const body = openBody(call, []);
  const pieces: Buffer[] = [];
  let sizeBytes = body.sizeBytes ?? 0;
  if (sizeBytes <= maxBytes) {
    sizeBytes = 0;
    for await (const piece of body) {
      sizeBytes += piece.length;
      if (sizeBytes > maxBytes) break;
      pieces.push(piece);
    }
  }
  if (sizeBytes > maxBytes) throw malformed(`it has more than ${maxBytes} bytes`);
  return Buffer.concat(pieces);
}

/** The XML that a request carries. */
export async function readXml(call: S3Call, maxBytes: number): Promise<XmlElement> {
  return parseXml(await readBytes(call, maxBytes));
}

/** Throws MalformedXML unless `element` is called `name`. */
export function expectElement(element: XmlElement, name: string): XmlElement {
  if (element.name !== name) throw malformed(`<${shown(element.name)}> stands where <${name}> is expected`);
  return element;
}

export function childrenOf(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name);
}

/** The one child of that name, or null. Throws MalformedXML where there are several. */
export function childOf(element: XmlElement, name: string): XmlElement | null {
  const found = childrenOf(element, name);
  if (found.length > 1) throw malformed(`<${shown(element.name)}> has several <${name}>`);
  return found[0] ?? null;
}

/** Text of the one child of that name, or null where there is none. */
export function textOf(element: XmlElement, name: string): string | null {
  return childOf(element, name)?.text ?? null;
}

/** As `textOf`; throws MalformedXML where there is none. */
export function requiredText(element: XmlElement, name: string): string {
  const text = textOf(element, name);
  if (text === null) throw malformed(`<${shown(element.name)}> lacks <${name}>`);
  return text;
}

export function malformed(reason: string): S3Error {
  return new S3Error("MalformedXML", `the XML of the request was not accepted: ${reason}`);
}

function shown(name: string): string {
  return name.length > 80 ? `${name.slice(0, 80)}...` : name;
}

// Beside the five of XML: a carriage return, which parsers would take for a newline, and what XML 1.0 cannot hold.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const SPECIAL = /[&<>"'\r\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu;

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "\r": "&#13;",
};

/**
 * Text for an element. Characters that no XML can hold become U+FFFD: who has keys with such asks for listings with
 * encoding-type=url.
 */
export function escapeXml(text: string): string {
  return text.replace(SPECIAL, (character) => ESCAPES[character] ?? "\ufffd");
}

/** `<name>value</name>`, escaped; nothing where the value is null. */
export function element(name: string, value: string | number | boolean | null): string {
  return value === null ? "" : `<${name}>${escapeXml(String(value))}</${name}>`;
}
