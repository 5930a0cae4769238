/**
 * Runs a user's command with a text on its standard input: for notifications. Time-limited, and it can hold nothing up:
 * it leads a process group of its own, which is killed as a whole when the time is over.
 */
import { spawn } from 'node:child_process';

const COMPLAINT_CHARS_MAX = 4096;

export type NotificationEnd = {
  /** Exit status; null when a signal ended it or it could not be started. */
  readonly status: number | null;
  readonly isLate: boolean;
  /** The beginning of its standard error, or why it could not be started. */
  readonly complaint: string;
};

/**
 * @param command a command line of the shell (`sh -c`)
 * @param env added to this process's environment
 */
export const notify = (
  command: string,
  input: string,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly env?: Readonly<Record<string, string>> },
): Promise<NotificationEnd> => {
  return new Promise((resolve) => {
    let complaint = '';
    let isLate = false;
    const child = spawn('/bin/sh', ['-c', command], {
      detached: true,
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const kill = (): void => {
      isLate = true;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It ended at this moment.
      }
    };
    const timer = setTimeout(kill, options.timeoutMs);
    options.signal.addEventListener('abort', kill, { once: true });
    const end = (status: number | null): void => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', kill);
      resolve({ status, isLate, complaint });
    };
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = `${complaint}${text}`.slice(0, COMPLAINT_CHARS_MAX);
    });
    // A command that does not read its input has still been told.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    child.once('error', (error) => {
      complaint = error.message;
      end(null);
    });
    child.once('close', (status) => end(status));
  });
};
