/**
 * Undoes the escapes of the kernel's tables: a blank, tab, newline, backslash or `#` in a path is written as a backslash
 * and three octal digits (Linux, `mangle_path`). Any byte may be written so; bytes above 127 are parts of UTF-8.
 */
const ESCAPE = /\\([0-3][0-7]{2})/g;

export const decodeOctal = (text: string): string => {
  if (!text.includes('\\')) return text;
  // latin1 keeps each byte a character of its own, so that several escapes can form one character of UTF-8.
  const bytes = Buffer.from(text, 'utf8').toString('latin1');
  const decoded = bytes.replace(ESCAPE, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
  return Buffer.from(decoded, 'latin1').toString('utf8');
};
