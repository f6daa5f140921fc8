"use strict";
// The checkbox in the head of the table selects all messages on the page.
document.addEventListener("DOMContentLoaded", () => {
    const all = document.getElementById("select-all");
    if (!all) {
        return;
    }
    const boxes = document.querySelectorAll("input[name=message]");
    all.hidden = false;
    all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
});
