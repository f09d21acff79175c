"""Reports of finished runs: for the terminal (`text`) and as one self-contained page (`html`).

Everything here reads what a run directory holds, never a live object.
"""
