"""`python -m alexnet_lab` is the program `alexnet-lab`, for torchrun, debuggers and profilers."""

from alexnet_lab.commands.program import main

if __name__ == "__main__":
    main()
