"use strict";
const button = document.getElementById("copy");
const url = document.getElementById("url");
if (button && url && navigator.clipboard) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(url.textContent.replace(/^TCP_URL=/, ""));
    button.textContent = "Copied";
  });
}
