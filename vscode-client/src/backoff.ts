/** HOW LONG to wait before a server that has ended is started again. */

const WAITS_MS: readonly number[] = [500, 1000, 2000, 4000, 8000, 16_000];
const HEALTHY_MS = 60_000;

/** Waits longer with each end; a server that has lived for a minute has all its tries again. */
export class Backoff {
  private ends = 0;
  private started = Date.now();

  /** Milliseconds to wait for the next start; undefined when it is time to give up. */
  next(): number | undefined {
    this.ends = Date.now() - this.started < HEALTHY_MS ? this.ends + 1 : 1;
    const wait = WAITS_MS[this.ends - 1];
    this.started = Date.now() + (wait ?? 0);
    return wait;
  }
}
