/**
 * Returns a promise that tests start early and wait for later. If a test fails in between, its own fault is told, and not that
 * nobody heard of this one's too: that would fail a whole run, even where the test passes when it is tried again.
 */
export function heard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
