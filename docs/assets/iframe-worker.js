// Chromium starts no worker from a file. The search runs in a hidden frame then, which loads the
// same script; from a server it is a worker as usual.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      // Written, so that no browser puts its own empty document there later.
      inside.document.open();
      inside.document.write("<!doctype html><body></body>");
      inside.document.close();
      // What the script of a worker calls.
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.importScripts = async (...urls) => {
        for (const one of urls) {
          await new Promise((resolve, reject) => {
            const script = inside.document.createElement("script");
            script.src = one;
            script.onload = resolve;
            script.onerror = reject;
            inside.document.body.appendChild(script);
          });
        }
      };
      this.frame = frame;
      this.started = inside.importScripts(new URL(url, document.baseURI).href);
    }

    postMessage(data) {
      const inside = this.frame.contentWindow;
      // Not before the script listens.
      this.started.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  }
  // The search's script looks for this name, to find its other files.
  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
}
