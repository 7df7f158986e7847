/** Signing keys of Signature Version 4, and what is signed with them. */
import { createHmac, timingSafeEqual } from "node:crypto";

const KEYS_MAX = 1_024;

export function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text, "latin1").digest();
}

export function signingKey(secretKey: string, date: string, region: string): Buffer {
  const dateKey = createHmac("sha256", `AWS4${secretKey}`).update(date).digest();
  return hmac(hmac(hmac(dateKey, region), "s3"), "aws4_request");
}

/** `signature` is 64 lower-case hexadecimal digits. Takes as long whichever of them is wrong. */
export function isSignature(key: Buffer, stringToSign: string, signature: string): boolean {
  return timingSafeEqual(hmac(key, stringToSign), Buffer.from(signature, "hex"));
}

/**
 * Signing keys that lately verified a request, the least recently used forgotten first. Only keys that did are
 * remembered: who cannot sign cannot push others out.
 */
export class SigningKeys {
  private readonly keys = new Map<string, { secretKey: string; key: Buffer }>();
  /** The key that was remembered last: mostly it is the next to be, too. */
  private latest: Buffer | null = null;

  get(accessKey: string, secretKey: string, date: string, region: string): Buffer {
    const found = this.keys.get(this.id(accessKey, date, region));
    return found?.secretKey === secretKey ? found.key : signingKey(secretKey, date, region);
  }

  remember(accessKey: string, secretKey: string, date: string, region: string, key: Buffer): void {
    if (key === this.latest) return;
    this.latest = key;
    const id = this.id(accessKey, date, region);
    this.keys.delete(id);
    this.keys.set(id, { secretKey, key });
    if (this.keys.size > KEYS_MAX) this.keys.delete(this.keys.keys().next().value as string);
  }

  get size(): number {
    return this.keys.size;
  }

  private id(accessKey: string, date: string, region: string): string {
    return `${date}/${region}/${accessKey}`;
  }
}
