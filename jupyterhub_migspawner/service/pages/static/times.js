// Shows each time in the reader's own time zone, and reads what is typed in it. Without this script
// everything stands in UTC, as the pages then say.
"use strict";
(() => {
  const FORMAT = {
    weekday: "short",
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    timeZoneName: "short",
  };
  // As sentences of the broker write a time: Mon 23 Nov 2026 13:05 UTC.
  const SENTENCE =
    /\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (\d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d UTC)\b(?!\s*[-+\u2212]\s*\d)/g;
  // What people typed, or can change, is theirs.
  const THEIRS = "script, style, textarea, input, time, .migspawner-typed";

  const local = (at) => at.toLocaleString(undefined, FORMAT);

  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (!Number.isNaN(at.getTime())) {
      element.textContent = local(at);
    }
  }

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.data.includes("UTC") && !node.parentElement.closest(THEIRS)) {
      node.data = node.data.replace(SENTENCE, (_, utc) => local(new Date(utc)));
    }
  }

  // 2026-12-01T18:00 in UTC and here: what a field of a date and a time holds has no zone.
  const pad = (number) => String(number).padStart(2, "0");
  const toLocal = (utc) => {
    const at = new Date(`${utc}Z`);
    return Number.isNaN(at.getTime())
      ? ""
      : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}T${pad(at.getHours())}:${pad(at.getMinutes())}`;
  };

  for (const field of document.querySelectorAll("input[type=datetime-local][data-utc]")) {
    const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "long" })
      .formatToParts(new Date())
      .find((part) => part.type === "timeZoneName").value;
    for (const name of document.querySelectorAll(`[data-zone-of="${field.id}"]`)) {
      name.textContent = zone;
    }
    // The form sends UTC; the reader sees and types their own time.
    const sent = document.createElement("input");
    sent.type = "hidden";
    sent.name = field.name;
    sent.value = field.value;
    field.removeAttribute("name");
    field.value = toLocal(field.value);
    field.after(sent);
    const keep = () => {
      const at = new Date(field.value);
      sent.value = Number.isNaN(at.getTime()) ? "" : at.toISOString().slice(0, 16);
    };
    field.addEventListener("input", keep);
    field.addEventListener("change", keep);
  }
})();
