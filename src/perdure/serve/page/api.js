// Requests to the server: the token, problems as errors, progress of uploads.

const KEY = "perdure-token";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

/** A refusal of the server, or its silence (status 0). */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);

/** Send a request; `progress` is told the share of an upload that was sent. */
export function send(method, path, body = null, progress = () => {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    const token = sessionStorage.getItem(KEY);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onerror = () => reject(new Refusal(0, "The server does not answer."));
    request.onload = () => {
      let content = null;
      try {
        content = JSON.parse(request.responseText);
      } catch {
        content = null;
      }
      if (request.status >= 200 && request.status < 300) resolve(content);
      else reject(new Refusal(request.status, content?.detail ?? `The server answered ${request.status}.`));
    };
    if (body === null || body instanceof FormData) {
      request.send(body);
    } else {
      request.setRequestHeader("Content-Type", "application/json");
      request.send(JSON.stringify(body));
    }
  });
}

/** A form of pictures, with a label for each where they have labels. */
export function formOf(files, labels = null) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  for (const label of labels ?? []) form.append("labels", label);
  return form;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
