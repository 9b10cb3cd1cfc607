/*
 * Tells in JupyterLab that a GPU session is about to end, and lets its person keep it.
 *
 * A prebuilt extension written by hand: the object at the end is what JupyterLab expects of a
 * module federation container, and its one plugin uses nothing but commands that JupyterLab 4 and
 * Notebook 7 have. So there is nothing to build.
 */
(() => {
  "use strict";

  const SECONDS = 10;
  const EXTEND = "jupyterhub-migspawner:keep";
  const OPEN = "jupyterhub-migspawner:sessions";

  /** The server's own word on where it is and how it is talked to. */
  function config() {
    const element = document.getElementById("jupyter-config-data");
    return element ? JSON.parse(element.textContent || "{}") : {};
  }

  /** The answer of this server's address for notices; null when it has none. */
  async function ask(method) {
    const { baseUrl, token } = config();
    const headers = { Accept: "application/json" };
    if (token) {
      headers.Authorization = `token ${token}`;
    }
    const xsrf = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]*)/);
    if (xsrf) {
      headers["X-XSRFToken"] = xsrf[1];
    }
    const response = await fetch(`${baseUrl}migspawner/notice`, {
      method,
      headers,
      cache: "no-store",
      credentials: "same-origin",
    });
    if (response.status === 404) {
      return null;
    }
    const answer = await response.json();
    if (!response.ok) {
      throw new Error(answer.message || `status ${response.status}`);
    }
    return answer;
  }

  /** A time as people here write it, with its day unless that is today. */
  function clock(iso) {
    const at = new Date(iso);
    const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const today = at.toDateString() === new Date().toDateString();
    return today ? time : `${at.toLocaleDateString([], { weekday: "long" })}, ${time}`;
  }

  function message({ notice, wished }) {
    const end = clock(notice.ends_at);
    if (notice.rule === "lost") {
      return `GPU lost at ${end}. ${notice.why}`;
    }
    if (notice.rule !== "idle") {
      // An approver may have brought the end forward; the broker says who and why.
      const why = notice.why ? notice.why.replace(/\.$/, "") : "its time limit is reached";
      return `This GPU session ends at ${end}: ${why}. Save your work.`;
    }
    if (wished) {
      return `This GPU session is not in use and ends at ${end}. Your request to keep it is being processed.`;
    }
    return (
      `This GPU session is not in use and ends at ${end}. ` +
      (notice.extendable ? "Use it or extend it to keep it." : "Use it to keep it.")
    );
  }

  class Teller {
    constructor(app) {
      this.app = app;
      this.id = null; // of the notification that is shown
      this.text = "";
      this.answered = null; // the last extension request whose answer was shown
    }

    async run() {
      // A page that nobody sees asks nothing: to the hub's proxy that would be activity of a user.
      if (!document.hidden) {
        try {
          const word = await ask("GET");
          if (word === null) {
            return; // this server holds no slice: there will never be anything
          }
          await this.show(word);
        } catch (error) {
          // A server that is away for a moment is reported by JupyterLab itself.
          console.debug("No notice is available:", error);
        }
      }
      window.setTimeout(() => this.run(), 1000 * SECONDS);
    }

    async show(word) {
      const { commands } = this.app;
      const { notice, answer } = word;
      if (this.answered === null) {
        this.answered = answer.wish || ""; // what was answered before this page was opened is old
      } else if (answer.wish && answer.wish !== this.answered) {
        this.answered = answer.wish;
        await commands.execute("apputils:notify", {
          message: answer.refusal || `Kept. If nobody uses it, this GPU session ends at ${clock(answer.kept_until)}.`,
          type: answer.refusal ? "error" : "success",
          options: { autoClose: answer.refusal ? false : 8000 },
        });
      }
      if (!notice) {
        if (this.id !== null) {
          await commands.execute("apputils:dismiss-notification", { id: this.id });
        }
        this.id = null;
        this.text = "";
        return;
      }
      const text = message(word);
      if (text === this.text) {
        return; // the user who closed it has read it
      }
      this.text = text;
      const actions = [];
      if (notice.rule === "idle" && notice.extendable && !word.wished) {
        actions.push({ label: "Keep it for longer", commandId: EXTEND, args: {} });
      }
      if (notice.page) {
        actions.push({ label: "My GPU sessions", commandId: OPEN, args: { page: notice.page } });
      }
      const shown = { message: text, type: notice.rule === "lost" ? "error" : "warning" };
      if (this.id !== null) {
        const updated = { ...shown, id: this.id, autoClose: false, actions };
        if (await commands.execute("apputils:update-notification", updated)) {
          return;
        }
      }
      const options = { autoClose: false, actions };
      this.id = await commands.execute("apputils:notify", { ...shown, options });
    }

    async keep() {
      try {
        await ask("POST");
        const word = await ask("GET");
        if (word !== null) {
          await this.show(word);
        }
      } catch (error) {
        await this.app.commands.execute("apputils:notify", {
          message: `This session could not be extended: ${error.message}`,
          type: "error",
          options: { autoClose: false },
        });
      }
    }
  }

  const plugin = {
    id: "jupyterhub-migspawner:plugin",
    description: "Announces that a GPU session is about to end.",
    autoStart: true,
    activate: (app) => {
      if (!config().hubUser) {
        return; // not under a hub
      }
      const teller = new Teller(app);
      app.commands.addCommand(EXTEND, {
        label: "Keep This GPU Session for Longer",
        execute: () => teller.keep(),
      });
      app.commands.addCommand(OPEN, {
        label: "Show My GPU Sessions",
        execute: ({ page }) => window.open(page || "/", "_blank", "noopener"),
      });
      void app.restored.then(() => teller.run());
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["jupyterhub-migspawner"] = {
    init: () => undefined,
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
