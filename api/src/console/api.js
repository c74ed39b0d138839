// Calls of the operators' API. The token is in this module's memory and nowhere else: it ends with the tab, or at sign-out.

let token = null;
let acted = -Infinity;
const inFlight = new Set();

export const signIn = (text) => { token = text; };
export const isSignedIn = () => token !== null;
export function signOut() {
  token = null;
  inFlight.forEach((call) => call.abort());
  inFlight.clear();
}

/** An answer that is no success. */
export class Refused extends Error {
  constructor(status, code, detail, requestId) {
    super(detail || `The API answered ${status}.`);
    Object.assign(this, { status, code, requestId });
  }
}

/** How long an answer may take, in milliseconds; that of an act, which may wait, longer. */
const READ_MS = 15000, ACT_MS = 60000;

async function call(method, path, query, headers) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(given).toString();
  const stop = new AbortController();
  inFlight.add(stop);
  const late = setTimeout(() => stop.abort(new DOMException("late", "TimeoutError")), method === "GET" ? READ_MS : ACT_MS);
  try {
    const response = await fetch(`v1/admin/${path}${text && `?${text}`}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...headers },
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      redirect: "error",
      signal: stop.signal,
    });
    // An answer that broke off is none; a refusal may come from before the API.
    const body = await response.json().catch((error) => response.ok ? Promise.reject(error) : {});
    if (!response.ok) throw new Refused(response.status, body.error?.code, body.detail ?? body.error?.message, body.error?.request_id);
    return { status: response.status, body };
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused(0, "UNREACHABLE", "The API cannot be reached.");
  } finally {
    clearTimeout(late);
    inFlight.delete(stop);
  }
}

export const get = async (path, query) => (await call("GET", path, query)).body;
export async function post(path, query, headers) {
  const answer = await call("POST", path, query, headers);
  if (!query?.dry_run) acted = Date.now();
  return answer;
}
/** When the last act was answered, in milliseconds. */
export const actedAt = () => acted;
export const part = encodeURIComponent;

/** The rows of a page. */
export const PAGE = 50;
/** The most calls of a list of which little is found. */
export const CALLS = 20;

/**
 * Reads the pages of a list behind `cursor`. `take` gets each and says how many rows are still wanted. One call reads a bounded part
 * of the table, so a page may be short, or empty, and not the last; a hidden tab reads no further.
 */
export async function pages(path, query, cursor, take) {
  let wanted = PAGE;
  do {
    const page = await get(path, { ...query, cursor, limit: wanted });
    wanted = Math.min(take(page), PAGE);
    cursor = page.next_cursor;
  } while (wanted > 0 && cursor && document.visibilityState === "visible");
}
