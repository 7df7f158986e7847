/** Time as policies see it, injected so that tests can move it. */
export interface Clock {
  /** Milliseconds that never jump; their zero means nothing. */
  monotonicMs(): number;
  /** Milliseconds since 1970, for people. */
  unixMs(): number;
}
