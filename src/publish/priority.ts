/** Which jobs a full buffer keeps: 9 is kept longest, 0 goes first. */
export type BufferPriority = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9

/** Of a publish that says nothing. */
export const DEFAULT_PRIORITY = 5
