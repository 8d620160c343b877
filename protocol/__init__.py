"""The declarations of everything that travels, and the generator that turns them into kpy/wire. Development only."""
