/** HOW LONG to wait before a server that has ended is started again. Pure: the clock is given. */

const FIRST_MS = 500;
const LONGEST_MS = 30_000;
const MOST_TRIES = 6;
const HEALTHY_MS = 60_000;

/** Doubles the wait with each end; one that has lived for a minute starts anew. */
export class Backoff {
  private tries = 0;
  private lastStart: number;

  constructor(private readonly now: () => number = Date.now) {
    this.lastStart = now();
  }

  /** Milliseconds to wait for the next start; undefined when it is time to give up. */
  next(): number | undefined {
    if (this.now() - this.lastStart >= HEALTHY_MS) {
      this.tries = 0;
    }
    if (this.tries === MOST_TRIES) {
      return undefined;
    }
    const wait = Math.min(FIRST_MS * 2 ** this.tries, LONGEST_MS);
    this.tries += 1;
    this.lastStart = this.now() + wait;
    return wait;
  }
}
