/** The most elements of one list of a request. More paths do not fit into the default of `limits.request_bytes`; shorter texts would. */
export const MOST_ELEMENTS = 500_000;
