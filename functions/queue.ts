/** First in, first out, with a fast lane: what was tried before goes first. Amortised O(1). */
export class Queue<T> {
  #urgent: T[] = [];
  #items: T[] = [];
  #head = 0;

  get size(): number {
    return this.#urgent.length + this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  pushUrgent(item: T): void {
    this.#urgent.push(item);
  }

  shift(): T | undefined {
    if (this.#urgent.length > 0) return this.#urgent.shift();
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined as T;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
