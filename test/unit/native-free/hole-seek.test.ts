import * as standIn from '../../../native-free/hole-seek.ts';
import { holeSeekConformance } from '../../support/hole-seek-conformance.ts';

holeSeekConformance('stand-in', standIn);
