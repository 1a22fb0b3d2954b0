#!/usr/bin/env python3
"""Answers one SMT-LIB file with cvc5's Python package, for Halmos: solver.py FILE.

Halmos describes the EVM with words of 256 bits. Laws about money multiply and divide them, which
takes solvers that look at bits minutes or forever; cvc5 reads the words as integers and answers at
once. The package brings the library but no program, so this is the program.
"""

import sys

import cvc5


def main(path: str) -> None:
    terms = cvc5.TermManager()
    solver = cvc5.Solver(terms)
    solver.setOption("solve-bv-as-int", "sum")
    solver.setOption("produce-models", "true")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, path)
    answered = ""
    while not (command := parser.nextCommand()).isNull():
        # A model is asked for whatever the answer was; there is none unless it was "sat".
        if command.getCommandName() == "get-model" and answered != "sat":
            continue
        answer = command.invoke(solver, parser.getSymbolManager()).strip()
        if answer:
            print(answer, flush=True)
        if command.getCommandName() == "check-sat":
            answered = answer


if __name__ == "__main__":
    main(sys.argv[1])
